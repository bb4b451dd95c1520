// Made by `npm run migrations` from the names of the .sql files beside it. A test holds the two equal.
export const NEWEST_MIGRATION = "0010_claim";
