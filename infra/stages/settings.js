/** The parameters of a deployed stage, checked: everything that is wrong with them in one error, before anything is built. */
const NAMES = [
  "profile",
  "slots",
  "residentSlots",
  "schema",
  "databaseClusterArn",
  "databaseSecretArn",
  "databaseName",
  "rolePrefix",
  "engineVersion",
  "minCapacity",
  "maxCapacity",
  "autoPauseSeconds",
  "backupDays",
  "kmsKeyArn",
  "logRetentionDays",
  "operate",
  "throttleRate",
  "throttleBurst",
  "alarmTopicArn",
  "alarmEmail",
  "backlogAgeSeconds",
];
const RESIDENTS = { strict: 2, standard: 1, quiet: 0 };
const RETENTION_DAYS = [
  1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

export async function readSettings({ resolveVariable }) {
  const given = {};
  for (const name of NAMES) given[name] = String((await resolveVariable(`param:${name}`)) ?? "").trim();
  const service = await resolveVariable("self:service");
  const stage = await resolveVariable("sls:stage");
  return settingsOf(given, `${service}-${stage}`);
}

/** `given`: text by parameter. `name`: of the stack's things. @throws Error that names every bad parameter, what it was and what is allowed */
export function settingsOf(given, name) {
  const problems = [];
  const bad = (key, allowed) => void problems.push(`${key} is ${JSON.stringify(given[key])}; allowed: ${allowed}`);
  const matching = (key, pattern, allowed) => {
    if (!pattern.test(given[key])) bad(key, allowed);
    return given[key];
  };
  const number = (key, from, to, whole = true) => {
    const value = given[key] === "" ? Number.NaN : Number(given[key]);
    if (!(value >= from && value <= to) || (whole && !Number.isInteger(value)))
      bad(key, `a ${whole ? "whole " : ""}number from ${from} to ${to}`);
    return value;
  };
  const arn = (key, service) =>
    matching(key, new RegExp(`^(arn:aws[a-z-]*:${service}:\\S{4,})?$`), `empty, or an ARN of ${service}`);

  if (!(given.profile in RESIDENTS)) bad("profile", "strict, standard or quiet");
  const slots = number("slots", 1, 1000);
  const fromProfile = Math.min(RESIDENTS[given.profile] ?? 0, slots);
  const residentSlots = given.residentSlots === "" ? fromProfile : number("residentSlots", 0, 1000);
  if (residentSlots > slots) problems.push(`residentSlots is ${residentSlots}, more than the ${slots} of slots`);
  if (given.profile === "quiet" && residentSlots > 0)
    problems.push(
      `profile is quiet, in which nobody polls, and residentSlots is ${residentSlots}: leave it empty, or take another profile`,
    );
  const schema = matching("schema", /^[a-z_][a-z0-9_]{0,49}$/, "1 to 50 of a-z, 0-9 and _, no digit first");
  const rolePrefix =
    given.rolePrefix === ""
      ? schema
      : matching("rolePrefix", /^[a-z_][a-z0-9_]{0,49}$/, "empty, or 1 to 50 of a-z, 0-9 and _, no digit first");
  const databaseClusterArn = matching(
    "databaseClusterArn",
    /^(arn:aws[a-z-]*:rds:\S+:cluster:\S+)?$/,
    "empty, or the ARN of an Aurora cluster",
  );
  const databaseSecretArn = arn("databaseSecretArn", "secretsmanager");
  if ((databaseClusterArn === "") !== (databaseSecretArn === ""))
    problems.push(
      `databaseClusterArn and databaseSecretArn go together: ${databaseClusterArn === "" ? "databaseClusterArn" : "databaseSecretArn"} is not set. Set both for an existing cluster, none for one of the stack's own`,
    );
  const minCapacity =
    given.profile === "quiet" && given.minCapacity === "0.5" ? 0 : number("minCapacity", 0, 256, false);
  const maxCapacity = number("maxCapacity", 1, 256, false);
  if (minCapacity > maxCapacity)
    problems.push(`minCapacity is ${minCapacity}, more than the ${maxCapacity} of maxCapacity`);
  const [major, minor] = matching("engineVersion", /^\d{2}\.\d{1,2}$/, "such as 17.4")
    .split(".")
    .map(Number);
  const least = { 15: 7, 16: 3, 17: 4 }[major] ?? (major > 17 ? 0 : undefined);
  if (least === undefined || minor < least)
    bad("engineVersion", "15.7, 16.3, 17.4 or later of the same: the Data API and scaling to zero need it");
  if (!RETENTION_DAYS.includes(Number(given.logRetentionDays))) bad("logRetentionDays", RETENTION_DAYS.join(", "));
  const alarmTopicArn = arn("alarmTopicArn", "sns");
  const alarmEmail = matching("alarmEmail", /^(\S+@\S+)?$/, "empty, or an address");
  if (alarmTopicArn !== "" && alarmEmail !== "")
    problems.push("alarmEmail and alarmTopicArn are both set: an address is subscribed to the stack's own topic only");
  const settings = {
    name,
    profile: given.profile,
    slots,
    residentSlots,
    schema,
    rolePrefix,
    databaseClusterArn,
    databaseSecretArn,
    databaseName: matching(
      "databaseName",
      /^[a-zA-Z_][a-zA-Z0-9_]{0,62}$/,
      "1 to 63 letters, digits and _, no digit first",
    ),
    engineVersion: given.engineVersion,
    minCapacity,
    maxCapacity,
    autoPauseSeconds: number("autoPauseSeconds", 300, 86_400),
    backupDays: number("backupDays", 1, 35),
    kmsKeyArn: arn("kmsKeyArn", "kms"),
    logRetentionDays: Number(given.logRetentionDays),
    operate: matching("operate", /^(true|false)$/, "true or false") === "true",
    throttleRate: number("throttleRate", 1, 10_000),
    throttleBurst: number("throttleBurst", 1, 5000),
    alarmTopicArn,
    alarmEmail,
    backlogAgeSeconds: number("backlogAgeSeconds", 10, 86_400),
  };
  if (problems.length > 0)
    throw new Error(`The stage's parameters are not usable (infra/stages/parameters.yml).\n- ${problems.join("\n- ")}`);
  return settings;
}
