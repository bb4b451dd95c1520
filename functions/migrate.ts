/** Called by CloudFormation at each deployment, before the new code serves; by hand with {}. */
import { roleSecrets } from "../lib/config.ts";
import { createDeploymentHandler } from "../lib/deployment.ts";

export const handler = createDeploymentHandler({ roleSecrets: roleSecrets() });
