/** Called by CloudFormation at each deployment, before the new code serves; by hand with {}. */
import { env } from "node:process";
import { createDeploymentHandler } from "../lib/deployment.ts";

export const handler = createDeploymentHandler({ roleSecrets: env.STINT_ROLE_SECRETS });
