/** What a person should wake up for. Each has a paragraph of the same name in infra/operations.md. */
const MINUTE = 60;

export function alarmsOf(settings) {
  const { name, alarmTopicArn, alarmEmail, residentSlots, profile, backlogAgeSeconds, slots } = settings;
  const quiet = profile === "quiet";
  const actions = alarmTopicArn === "" ? [{ Ref: "AlarmTopic" }] : [alarmTopicArn];
  const stint = (metric) => ({
    Namespace: "Stint",
    MetricName: metric,
    Dimensions: [{ Name: "Service", Value: name }],
  });
  const lambda = (metric, logicalId) => ({
    Namespace: "AWS/Lambda",
    MetricName: metric,
    Dimensions: [{ Name: "FunctionName", Value: { Ref: logicalId } }],
  });
  const queue = (logicalId) => ({
    Namespace: "AWS/SQS",
    MetricName: "ApproximateNumberOfMessagesVisible",
    Dimensions: [{ Name: "QueueName", Value: { "Fn::GetAtt": [logicalId, "QueueName"] } }],
  });
  const alarm = (what, metric, Statistic, Threshold, periods, more = {}) => ({
    Type: "AWS::CloudWatch::Alarm",
    Properties: {
      AlarmName: `${name}-${what}`,
      AlarmDescription: `See ${what} in infra/operations.md`,
      ...metric,
      Statistic,
      Period: 5 * MINUTE,
      EvaluationPeriods: periods,
      Threshold,
      ComparisonOperator: "GreaterThanThreshold",
      TreatMissingData: "notBreaching",
      AlarmActions: actions,
      OKActions: actions,
      ...more,
    },
  });
  return {
    ...(alarmTopicArn === "" && {
      AlarmTopic: {
        Type: "AWS::SNS::Topic",
        Properties: {
          DisplayName: name,
          ...(alarmEmail !== "" && { Subscription: [{ Protocol: "email", Endpoint: alarmEmail }] }),
        },
      },
    }),
    BacklogAgeAlarm: alarm("backlog-age", stint("OldestDueSeconds"), "Minimum", backlogAgeSeconds, 2),
    // Each resident is started anew each minute: without any for a quarter of an hour nothing runs at all.
    ...(!quiet && {
      NothingRunsAlarm: alarm("nothing-runs", lambda("Invocations", "ProcessorLambdaFunction"), "Sum", slots, 3, {
        ComparisonOperator: "LessThanThreshold",
        TreatMissingData: "breaching",
      }),
    }),
    ...(residentSlots > 0 && {
      ResidentsMissingAlarm: alarm("residents-missing", stint("LiveResidents"), "Maximum", residentSlots, 3, {
        ComparisonOperator: "LessThanThreshold",
      }),
    }),
    ProcessorErrorsAlarm: alarm("processor-errors", lambda("Errors", "ProcessorLambdaFunction"), "Sum", 5, 2),
    ProcessorThrottlesAlarm: alarm("processor-throttles", lambda("Throttles", "ProcessorLambdaFunction"), "Sum", 5, 3),
    TasksRescuedAlarm: alarm("tasks-rescued", stint("TasksRescued"), "Sum", 10, 2),
    StaleCompletionsAlarm: alarm("stale-completions", stint("StaleCompletions"), "Sum", 5, 2),
    HealthErrorsAlarm: alarm("health-errors", lambda("Errors", "HealthLambdaFunction"), "Sum", 3, 2),
    TickDeadLetterAlarm: alarm("ticks-lost", queue("TickDeadLetterQueue"), "Maximum", 10, 1),
    ...(quiet && { WakeDeadLetterAlarm: alarm("wakes-lost", queue("WakeDeadLetterQueue"), "Maximum", 0, 1) }),
  };
}

export function dashboardOf({ name }) {
  const region = { Ref: "AWS::Region" };
  const widget = (place, title, stat, ...metrics) => ({
    type: "metric",
    x: (place % 2) * 12,
    y: Math.floor(place / 2) * 6,
    width: 12,
    height: 6,
    properties: {
      title,
      stat,
      period: 60,
      region: "@region@",
      metrics: metrics.map((metric) => ["Stint", metric, "Service", name]),
    },
  });
  const body = JSON.stringify({
    widgets: [
      widget(0, "Tasks a minute", "Sum", "TasksClaimed", "TasksSucceeded", "TasksFailed"),
      widget(1, "Waiting", "Maximum", "Backlog"),
      widget(2, "Oldest due task, seconds", "Maximum", "OldestDueSeconds"),
      widget(3, "Pick-up, ms, p99", "p99", "PickUpMs"),
      widget(4, "Rescued, stale", "Sum", "TasksRescued", "StaleCompletions"),
      widget(5, "Live residents", "Maximum", "LiveResidents"),
      widget(6, "Invocations, ms", "Average", "InvocationDurationMs"),
      widget(7, "Requests to the database", "Sum", "Requests"),
    ],
  });
  // Joined, not substituted: the body is full of braces.
  const parts = body.split("@region@").flatMap((part, place) => (place === 0 ? [part] : [region, part]));
  return {
    Dashboard: {
      Type: "AWS::CloudWatch::Dashboard",
      Properties: { DashboardName: name, DashboardBody: { "Fn::Join": ["", parts] } },
    },
  };
}
