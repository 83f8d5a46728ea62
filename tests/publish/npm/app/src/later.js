export const word = "later";
