/** The client's version, which servers find in their logs. */
export const VERSION = "0.1.0";
