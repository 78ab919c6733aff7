/** Bounds of the protocol, as its page names them. */

/** Largest frame before the server's Welcome. */
export const CONNECT_FRAME_BYTES = 65_536;
export const SESSION_BYTES = 16;
/** Items of one array of a message. */
export const LIST_ITEMS_MAX = 16_384;
/** Values behind the fields that we know, at one place. */
export const UNKNOWN_VALUES_MAX = 1_024;
/** Queries of a session at a time. */
export const QUERIES_MAX = 4_096;
/** Mutations and actions of a connection without an answer. */
export const REQUESTS_IN_FLIGHT_MAX = 1_024;
/** Lists and dicts inside one another. */
export const VALUE_DEPTH_MAX = 64;
/** The same of a delta, which wraps values in operations of its own. */
export const DELTA_DEPTH_MAX = 512;
/** Heartbeats without a message after which a peer is given up. */
export const SILENCE_FACTOR = 3;
