/** Stage local: one schedule a slot, fired by serverless-offline; the first ones are resident. Deployed stages: infra/resources/schedules.js. */
export async function schedules({ resolveVariable }) {
  if ((await resolveVariable("sls:stage")) !== "local") return [];
  const slots = whole("slots", await resolveVariable("param:slots"), 1);
  const residentSlots = whole("residentSlots", await resolveVariable("param:residentSlots"), 0);
  return Array.from({ length: slots }, (_, slot) => ({
    schedule: {
      method: "scheduler",
      rate: ["rate(1 minute)"],
      description: `Slot ${slot} of the task processor`,
      input: { slot, resident: slot < residentSlots },
    },
  }));
}

function whole(name, value, least) {
  const number = Number(value);
  if (!Number.isInteger(number) || number < least || number > 1000)
    throw new Error(`${name} is a whole number from ${least} to 1000, not ${JSON.stringify(value)}.`);
  return number;
}
