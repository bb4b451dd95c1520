/** A schedule a slot, a queue for what did not arrive; the quiet profile's queue of wakes. */
import { schedulerRole } from "./roles.js";

const queue = (settings, Properties) => ({
  Type: "AWS::SQS::Queue",
  Properties: {
    ...(settings.kmsKeyArn === "" ? { SqsManagedSseEnabled: true } : { KmsMasterKeyId: settings.kmsKeyArn }),
    ...Properties,
  },
});

export function schedulesOf(settings) {
  const quiet = settings.profile === "quiet";
  // Where nobody polls each tick is one that wakes the database: an hourly one of one slot is enough as a safety net.
  const slots = quiet ? 1 : settings.slots;
  const schedules = Array.from({ length: slots }, (_, slot) => [
    `Slot${slot}Schedule`,
    {
      Type: "AWS::Scheduler::Schedule",
      Properties: {
        Description: `${settings.name}: slot ${slot} of the task processor`,
        FlexibleTimeWindow: { Mode: "OFF" },
        ScheduleExpression: quiet ? "rate(1 hour)" : "rate(1 minute)",
        State: "ENABLED",
        Target: {
          Arn: { "Fn::GetAtt": ["ProcessorLambdaFunction", "Arn"] },
          RoleArn: { "Fn::GetAtt": ["SchedulerRole", "Arn"] },
          Input: JSON.stringify({ slot, resident: slot < settings.residentSlots }),
          // A late tick is worth nothing: the next one comes within its interval.
          RetryPolicy: { MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60 },
          DeadLetterConfig: { Arn: { "Fn::GetAtt": ["TickDeadLetterQueue", "Arn"] } },
        },
      },
    },
  ]);
  return {
    SchedulerRole: schedulerRole("TickDeadLetterQueue"),
    TickDeadLetterQueue: queue(settings, { MessageRetentionPeriod: 345_600 }),
    ...Object.fromEntries(schedules),
    ...(quiet && wakes(settings)),
  };
}

const wakes = (settings) => ({
  WakeQueue: queue(settings, {
    // As long as an invocation may run, so that a wake is not delivered again while its first is being served.
    VisibilityTimeout: 960,
    MessageRetentionPeriod: 86_400,
    RedrivePolicy: { deadLetterTargetArn: { "Fn::GetAtt": ["WakeDeadLetterQueue", "Arn"] }, maxReceiveCount: 5 },
  }),
  WakeDeadLetterQueue: queue(settings, { MessageRetentionPeriod: 1_209_600 }),
  WakeMapping: {
    Type: "AWS::Lambda::EventSourceMapping",
    Properties: {
      EventSourceArn: { "Fn::GetAtt": ["WakeQueue", "Arn"] },
      FunctionName: { "Fn::GetAtt": ["ProcessorLambdaFunction", "Arn"] },
      BatchSize: 1,
      Enabled: true,
      ScalingConfig: { MaximumConcurrency: Math.max(2, settings.slots) },
    },
  },
});
