/** What a refusal of AWS or of Postgres comes down to, and what to do: said once, where it is first heard. */

const CAUSES: readonly (readonly [RegExp, string])[] = [
  [
    /HttpEndpointNotEnabled|HttpEndpoint is not enabled/i,
    "The cluster has no Data API. Enable it: `aws rds enable-http-endpoint --resource-arn ARN`, or EnableHttpEndpoint in its template.",
  ],
  [
    /DatabaseNotFound|3D000/,
    "There is no such cluster or database: look at DATABASE_RESOURCE_ARN and DATABASE_NAME (databaseClusterArn and databaseName of a stage), or at the URL.",
  ],
  [
    /InvalidSecret|SecretsError|28P01|28000|password authentication/i,
    "The secret is not one that may log in: DATABASE_SECRET_ARN (databaseSecretArn of a stage) names a secret with a user name and its password.",
  ],
  [
    /AccessDenied|Forbidden|not authorized/i,
    "The function's role may not use this cluster or secret: it needs rds-data on the cluster and secretsmanager:GetSecretValue on the secret; with a key of your own also the kmsKeyArn parameter.",
  ],
  [
    /42501|permission denied/i,
    "The login lacks a right: functions log in by the roles that `stint roles` makes; migrations by one that owns the schema (or may CREATE in the database) and has CREATEROLE.",
  ],
];

/** The message with its cause in front, where it is one of those that have to do with set-up. */
export function explained(message: string, sqlState = ""): string {
  const cause = CAUSES.find(([pattern]) => pattern.test(`${message} ${sqlState}`));
  return cause === undefined ? message : `${cause[1]} (${message})`;
}
