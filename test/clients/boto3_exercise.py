"""boto3, as Python applications use it, against the Data API that DATA_API names."""

import json
import os

import boto3
from botocore.config import Config

target = json.loads(os.environ["DATA_API"])
arns = {"resourceArn": target["resourceArn"], "secretArn": target["secretArn"]}
client = boto3.client(
    "rds-data",
    endpoint_url=target["endpoint"],
    region_name=target["region"],
    config=Config(retries={"total_max_attempts": 1}),
)


def execute(sql, parameters=(), **more):
    return client.execute_statement(
        **arns, database=target["database"], sql=sql, parameters=list(parameters), **more
    )


def text(name, value, hint=None):
    return {"name": name, "value": {"stringValue": value}, **({"typeHint": hint} if hint else {})}


def failure_of(work):
    try:
        return {"none": work()}
    except client.exceptions.ClientError as error:
        return {"name": error.response["Error"]["Code"], "message": error.response["Error"]["Message"]}


def begin():
    return client.begin_transaction(**arns, database=target["database"])["transactionId"]


insert = "INSERT INTO invoice (customer) VALUES (:customer)"
created = execute(
    """INSERT INTO invoice (customer, amount, issued_at, due, reference, details, weight, number)
       VALUES (:customer, :amount, :issued_at, :due, :reference, :details, :weight, :number) RETURNING *""",
    [
        text("customer", "Ada"),
        text("amount", "12.50", "DECIMAL"),
        text("issued_at", "2026-01-02 03:04:05.678", "TIMESTAMP"),
        text("due", "2026-02-01", "DATE"),
        text("reference", "9b0f3c5e-0000-4000-8000-000000000000", "UUID"),
        text("details", json.dumps({"lines": [{"text": "it's ünïcode"}]}, ensure_ascii=False), "JSON"),
        {"name": "weight", "value": {"doubleValue": 1.5}},
        {"name": "number", "value": {"longValue": 9223372036854775807}},
    ],
    includeResultMetadata=True,
)
batch = client.batch_execute_statement(
    **arns,
    database=target["database"],
    sql=insert,
    parameterSets=[[text("customer", "Bob")], [text("customer", "Cleo")]],
)
updated = execute(
    "UPDATE invoice SET paid = true, amount = :none WHERE customer = :customer",
    [text("customer", "Bob"), {"name": "none", "value": {"isNull": True}}],
)
execute("DELETE FROM invoice WHERE customer = 'Cleo'")

transaction = begin()
execute(insert, [text("customer", "committed")], transactionId=transaction)
committed = client.commit_transaction(**arns, transactionId=transaction)["transactionStatus"]
transaction = begin()
execute(insert, [text("customer", "rolled back")], transactionId=transaction)
rolled_back = client.rollback_transaction(**arns, transactionId=transaction)["transactionStatus"]

names = [column["name"] for column in created["columnMetadata"]]
print(
    json.dumps(
        {
            "created": dict(zip(names, created["records"][0])),
            "types": [column["typeName"] for column in created["columnMetadata"]],
            "batch": batch["updateResults"],
            "updated": updated["numberOfRecordsUpdated"],
            "committed": committed,
            "rolledBack": rolled_back,
            "gone": failure_of(lambda: client.commit_transaction(**arns, transactionId=transaction))["name"],
            "customers": json.loads(
                execute("SELECT customer FROM invoice ORDER BY id", formatRecordsAs="JSON")["formattedRecords"]
            ),
            "duplicate": failure_of(lambda: execute(insert, [text("customer", "Ada")])),
            "syntax": failure_of(lambda: execute("SELEC 1")),
            "missingCast": failure_of(
                lambda: execute("SELECT 1 FROM invoice WHERE reference = :r", [text("r", "9b0f3c5e")])
            ),
        }
    )
)
