/** A role a function: one cluster, its own secrets, its own log group. No action or resource is a wildcard. */
const statement = (Action, Resource) => ({ Effect: "Allow", Action, Resource });

const assumedBy = (service) => ({
  Version: "2012-10-17",
  Statement: [{ Effect: "Allow", Principal: { Service: service }, Action: "sts:AssumeRole" }],
});

const role = (service, name, statements) => ({
  Type: "AWS::IAM::Role",
  Properties: {
    AssumeRolePolicyDocument: assumedBy(service),
    Policies: [{ PolicyName: name, PolicyDocument: { Version: "2012-10-17", Statement: statements } }],
  },
});

export const schedulerRole = (deadLetterQueue) =>
  role("scheduler.amazonaws.com", "invoke-the-processor", [
    statement("lambda:InvokeFunction", { "Fn::GetAtt": ["ProcessorLambdaFunction", "Arn"] }),
    statement("sqs:SendMessage", { "Fn::GetAtt": [deadLetterQueue, "Arn"] }),
  ]);

export function functionRole({ logGroup, clusterArn, secrets, kmsKeyArn, more = [] }) {
  return role("lambda.amazonaws.com", "what-it-needs", [
    statement(["logs:CreateLogStream", "logs:PutLogEvents"], { "Fn::GetAtt": [logGroup, "Arn"] }),
    statement(
      [
        "rds-data:ExecuteStatement",
        "rds-data:BeginTransaction",
        "rds-data:CommitTransaction",
        "rds-data:RollbackTransaction",
      ],
      clusterArn,
    ),
    statement("secretsmanager:GetSecretValue", secrets),
    ...(kmsKeyArn === "" ? [] : [statement("kms:Decrypt", kmsKeyArn)]),
    ...more,
  ]);
}

export const allow = statement;
