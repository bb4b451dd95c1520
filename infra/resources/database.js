/** An Aurora cluster of the stack's own with its network, or what stands for an existing one; a secret a database role. */
export const ROLES = ["Producer", "Worker", "Monitor", "Operator"];

/** `serverless remove`, a failed first deployment and a replacement all leave it where it is. */
const kept = (resource) => ({ ...resource, DeletionPolicy: "RetainExceptOnCreate", UpdateReplacePolicy: "Retain" });

const named = (name) => [{ Key: "Name", Value: name }];

const subnet = (name, place) =>
  kept({
    Type: "AWS::EC2::Subnet",
    Properties: {
      VpcId: { Ref: "DatabaseVpc" },
      CidrBlock: `10.61.0.${place * 64}/26`,
      AvailabilityZone: { "Fn::Select": [place, { "Fn::GetAZs": "" }] },
      Tags: named(`${name}-database-${place}`),
    },
  });

function cluster({
  name,
  databaseName,
  engineVersion,
  minCapacity,
  maxCapacity,
  autoPauseSeconds,
  backupDays,
  kmsKeyArn,
}) {
  const key = kmsKeyArn === "" ? {} : { KmsKeyId: kmsKeyArn };
  return {
    // Nothing leads in or out: the functions reach the cluster through the Data API.
    DatabaseVpc: kept({
      Type: "AWS::EC2::VPC",
      Properties: {
        CidrBlock: "10.61.0.0/24",
        EnableDnsSupport: true,
        EnableDnsHostnames: true,
        Tags: named(`${name}-database`),
      },
    }),
    DatabaseSubnetA: subnet(name, 0),
    DatabaseSubnetB: subnet(name, 1),
    DatabaseSubnets: kept({
      Type: "AWS::RDS::DBSubnetGroup",
      Properties: {
        DBSubnetGroupDescription: `${name}: subnets of the database`,
        SubnetIds: [{ Ref: "DatabaseSubnetA" }, { Ref: "DatabaseSubnetB" }],
      },
    }),
    DatabaseSecurityGroup: kept({
      Type: "AWS::EC2::SecurityGroup",
      Properties: {
        GroupDescription: `${name}: the database. Nothing comes in; add a rule for a client of its own`,
        VpcId: { Ref: "DatabaseVpc" },
        // Without a rule here AWS would allow everything out.
        SecurityGroupEgress: [{ IpProtocol: "-1", CidrIp: "127.0.0.1/32", Description: "none" }],
      },
    }),
    DatabaseCluster: kept({
      Type: "AWS::RDS::DBCluster",
      Properties: {
        Engine: "aurora-postgresql",
        EngineVersion: engineVersion,
        DatabaseName: databaseName,
        MasterUsername: "stint_owner",
        ManageMasterUserPassword: true,
        ...(kmsKeyArn !== "" && { MasterUserSecret: { KmsKeyId: kmsKeyArn } }),
        EnableHttpEndpoint: true,
        StorageEncrypted: true,
        ...key,
        DeletionProtection: true,
        BackupRetentionPeriod: backupDays,
        CopyTagsToSnapshot: true,
        DBSubnetGroupName: { Ref: "DatabaseSubnets" },
        VpcSecurityGroupIds: [{ "Fn::GetAtt": ["DatabaseSecurityGroup", "GroupId"] }],
        ServerlessV2ScalingConfiguration: {
          MinCapacity: minCapacity,
          MaxCapacity: maxCapacity,
          ...(minCapacity === 0 && { SecondsUntilAutoPause: autoPauseSeconds }),
        },
      },
    }),
    DatabaseInstance: kept({
      Type: "AWS::RDS::DBInstance",
      Properties: {
        Engine: "aurora-postgresql",
        DBInstanceClass: "db.serverless",
        DBClusterIdentifier: { Ref: "DatabaseCluster" },
        PubliclyAccessible: false,
        AutoMinorVersionUpgrade: true,
      },
    }),
  };
}

export const databaseOf = (settings) =>
  settings.databaseClusterArn === ""
    ? {
        clusterArn: { "Fn::GetAtt": ["DatabaseCluster", "DBClusterArn"] },
        ownerSecretArn: { "Fn::GetAtt": ["DatabaseCluster", "MasterUserSecret.SecretArn"] },
        resources: cluster(settings),
        dependsOn: ["DatabaseInstance"],
      }
    : {
        clusterArn: settings.databaseClusterArn,
        ownerSecretArn: settings.databaseSecretArn,
        resources: {},
        dependsOn: [],
      };

const secret = (Description, GenerateSecretString, { kmsKeyArn }) =>
  kept({
    Type: "AWS::SecretsManager::Secret",
    Properties: { Description, GenerateSecretString, ...(kmsKeyArn !== "" && { KmsKeyId: kmsKeyArn }) },
  });

/** In the shape that the Data API reads: user name and password. */
export const secretsOf = (settings) => ({
  ...Object.fromEntries(
    ROLES.map((role) => [
      `${role}Secret`,
      secret(
        `${settings.name}: database role ${role.toLowerCase()}`,
        {
          SecretStringTemplate: JSON.stringify({ username: `${settings.rolePrefix}_${role.toLowerCase()}` }),
          GenerateStringKey: "password",
          PasswordLength: 32,
          ExcludePunctuation: true,
        },
        settings,
      ),
    ]),
  ),
  MonitoringTokenSecret: secret(
    `${settings.name}: reads under /processor`,
    { PasswordLength: 40, ExcludePunctuation: true },
    settings,
  ),
  ...(settings.operate && {
    MonitoringAdminTokenSecret: secret(
      `${settings.name}: reads and acts under /processor`,
      { PasswordLength: 40, ExcludePunctuation: true },
      settings,
    ),
  }),
});
