/** AWS Lambda Powertools, which solves request ids, cold starts, log levels and the embedded metric format. For lib/observability.ts, which loads it late. */
import { Logger } from "@aws-lambda-powertools/logger";
import { Metrics } from "@aws-lambda-powertools/metrics";

export interface Powertools {
  readonly logger: Logger;
  readonly metrics: Metrics;
}

export function startPowertools(namespace: string, serviceName: string): Powertools {
  const logger = new Logger({ serviceName });
  const metrics = new Metrics({ namespace, serviceName, logger });
  metrics.clearDefaultDimensions();
  metrics.setDefaultDimensions({ Service: serviceName });
  return { logger, metrics };
}
