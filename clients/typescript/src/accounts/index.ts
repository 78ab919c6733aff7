/** Sign-in at the accounts of a bundle. */

export { AccountClient, type AccountOptions, type TokenStorage } from "./accountClient.js";
