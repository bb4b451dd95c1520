export type { Chance, Cluster, Credentials, DataApi, DataApiOptions, FaultOptions } from "./options.ts";
export { startDataApi } from "./server.ts";
