/** What AWS asks: us-east-1, USD, on demand. The only place of prices; `README.md` beside it says which could not be verified. */

export interface Price {
  readonly what: string;
  readonly unit: string;
  /** USD a unit, by the month's amount: a tier holds from `from` units on. */
  readonly tiers: readonly { readonly from: number; readonly usd: number }[];
  /** Units a month that AWS gives away for ever. Taken off only where asked. */
  readonly freeUnits: number;
  readonly source: string;
  /** Of the source, year and month. */
  readonly asOf: string;
  /** What is not certain of it. */
  readonly doubt?: string;
}

export const REGION = "us-east-1";
export const HOURS_A_MONTH = 730;

const flat = (usd: number) => [{ from: 0, usd }];
const million = (usd: number) => flat(usd / 1e6);

export const PRICES = {
  lambdaRequests: {
    what: "Lambda, requests",
    unit: "request",
    tiers: million(0.2),
    freeUnits: 1_000_000,
    source:
      "https://github.com/aws-solutions-library-samples/guidance-for-custom-game-backend-hosting-on-aws/issues/12",
    asOf: "2023-09",
  },
  lambdaGbSeconds: {
    what: "Lambda on Arm, duration",
    unit: "GB-second",
    tiers: [
      { from: 0, usd: 0.0000133334 },
      { from: 7.5e9, usd: 0.0000120001 },
      { from: 18.75e9, usd: 0.0000106667 },
    ],
    freeUnits: 400_000,
    source: "https://cloudchipr.com/blog/aws-lambda-pricing",
    asOf: "2024",
    doubt: "the third tier is not in the stored part of the page",
  },
  dataApiRequests: {
    what: "RDS Data API, requests",
    unit: "request",
    tiers: million(0.35),
    freeUnits: 0,
    source: "https://aws.amazon.com/rds/aurora/pricing/",
    asOf: "2026",
    doubt:
      "read on no page: the stored copies of the page do not show the amount; what is sent beyond 32 KB, and a cheaper tier, are left out",
  },
  schedulerInvocations: {
    what: "EventBridge Scheduler, invocations",
    unit: "invocation",
    tiers: million(1),
    freeUnits: 14_000_000,
    source: "https://cloudburn.io/blog/amazon-eventbridge-pricing",
    asOf: "2026-03",
  },
  sqsRequests: {
    what: "SQS standard queue, requests",
    unit: "request",
    tiers: [
      { from: 0, usd: 0.4e-6 },
      { from: 100e9, usd: 0.3e-6 },
      { from: 200e9, usd: 0.24e-6 },
    ],
    freeUnits: 1_000_000,
    source: "https://cloudburn.io/blog/amazon-sqs-pricing",
    asOf: "2026-03",
  },
  auroraAcuHours: {
    what: "Aurora PostgreSQL Serverless v2, capacity",
    unit: "ACU-hour",
    tiers: flat(0.12),
    freeUnits: 0,
    source: "https://www.factualminds.com/blog/amazon-aurora-pricing-io-optimized-serverless-v2-global/",
    asOf: "2026-06",
  },
  auroraStorage: {
    what: "Aurora Standard, storage",
    unit: "GB-month",
    tiers: flat(0.1),
    freeUnits: 0,
    source: "https://github.com/infracost/infracost/pull/537",
    asOf: "2021-03",
    doubt: "an old source",
  },
  auroraIo: {
    what: "Aurora Standard, I/O",
    unit: "request",
    tiers: million(0.2),
    freeUnits: 0,
    source: "https://www.jusdb.com/blog/aws-rds-vs-aurora-vs-serverless-cost-comparison",
    asOf: "2026",
    doubt: "the page has no date",
  },
  fargateCpu: {
    what: "Fargate on Arm, vCPU",
    unit: "vCPU-hour",
    tiers: flat(0.03238),
    freeUnits: 0,
    source: "https://www.vantage.sh/blog/fargate-pricing",
    asOf: "2021-04",
    doubt: "an old source; the x86 price beside it is still the one of 2026",
  },
  fargateMemory: {
    what: "Fargate on Arm, memory",
    unit: "GB-hour",
    tiers: flat(0.00356),
    freeUnits: 0,
    source: "https://www.vantage.sh/blog/fargate-pricing",
    asOf: "2021-04",
    doubt: "an old source; the x86 price beside it is still the one of 2026",
  },
  publicAddress: {
    what: "a public IPv4 address",
    unit: "hour",
    tiers: flat(0.005),
    freeUnits: 0,
    source: "https://scalefactory.com/blog/2023/08/02/ipv4-costs-on-aws/",
    asOf: "2023-08",
    doubt: "the amount is not in the stored part of the page",
  },
  logs: {
    what: "CloudWatch, logs taken in",
    unit: "GB",
    tiers: flat(0.5),
    freeUnits: 5,
    source: "https://www.factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards/",
    asOf: "2026",
    doubt: "cheaper tiers for Lambda's logs from 10 TB on are left out",
  },
  metrics: {
    what: "CloudWatch, custom metrics",
    unit: "metric",
    tiers: flat(0.3),
    freeUnits: 10,
    source: "https://signoz.io/guides/cloudwatch-pricing",
    asOf: "2026-02",
  },
  alarms: {
    what: "CloudWatch, alarms",
    unit: "alarm",
    tiers: flat(0.1),
    freeUnits: 10,
    source: "https://cloudburn.io/blog/amazon-cloudwatch-pricing",
    asOf: "2026-02",
    doubt: "the amount is not in the stored part of the page",
  },
  dashboards: {
    what: "CloudWatch, dashboards",
    unit: "dashboard",
    tiers: flat(3),
    freeUnits: 3,
    source: "https://www.factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards/",
    asOf: "2026",
  },
  secrets: {
    what: "Secrets Manager, secrets",
    unit: "secret",
    tiers: flat(0.4),
    freeUnits: 0,
    source: "https://hivebook.wiki/wiki/aws-secrets-manager-rotated-secrets-dynamic-db-credentials-kms",
    asOf: "2026",
    doubt: "what the Data API reads them costs nothing in this model: AWS does not say how often it does",
  },
} satisfies Record<string, Price>;

export type Priced = keyof typeof PRICES;
/** Units a month. */
export type Usage = Partial<Record<Priced, number>>;

/** USD for so many units in a month. */
export function costOf(priced: Priced, units: number, freeTier: boolean): number {
  const { tiers, freeUnits }: Price = PRICES[priced];
  const paidFrom = freeTier ? Math.min(freeUnits, units) : 0;
  return tiers.reduce((sum, { from, usd }, place) => {
    const upTo = Math.min(units, tiers[place + 1]?.from ?? Number.POSITIVE_INFINITY);
    return sum + Math.max(0, upTo - Math.max(from, paidFrom)) * usd;
  }, 0);
}

/** USD by what is priced. */
export function bill(usage: Usage, freeTier: boolean): Partial<Record<Priced, number>> {
  return Object.fromEntries(
    Object.entries(usage).map(([priced, units]) => [priced, costOf(priced as Priced, units, freeTier)]),
  );
}

export const totalOf = (usage: Usage, freeTier: boolean): number =>
  Object.values(bill(usage, freeTier)).reduce((sum, usd) => sum + usd, 0);
