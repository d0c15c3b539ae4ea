/** Bodies within a message, multiparts included. */
export const PART_LIMIT = 1000;
/** How deep they may lie in each other; Postfix's mime_nesting_limit is 100. */
export const DEPTH_LIMIT = 30;
/** Octets of the header section of one part. */
export const PART_HEADER_LIMIT = 64 * 1024;
/** Characters of text that are looked at, all parts together. */
export const TEXT_LIMIT = 8 * 1024 * 1024;
/** Octets of text in attachments that call themselves something else. */
export const HIDDEN_TEXT_LIMIT = 1024 * 1024;
/** RFC 2046 §5.1.1 allows 70 characters; some programs take more. */
export const BOUNDARY_LIMIT = 250;
/** Notes about one message; they say the same of many parts. */
export const NOTE_LIMIT = 5;
