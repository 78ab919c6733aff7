import { useConnectionState } from "headwater/react";

/** Says when what is shown may be old, and what is not saved yet. */
export function Connection() {
  const { phase, inflightMutations } = useConnectionState();
  const waiting = inflightMutations > 0 ? `, ${inflightMutations} not saved` : "";
  return (
    <output data-phase={phase}>
      {phase === "open" ? "live" : phase}
      {waiting}
    </output>
  );
}
