export type FieldKind =
  | "boolean"
  | "long"
  | "double"
  | "decimal"
  | "string"
  | "timestamp"
  | "blob"
  | "array"
  | "unsupported";

export interface PostgresType {
  name: string;
  kind: FieldKind;
  /** Of an array. */
  element?: PostgresType & { oid: number };
  /** java.sql.Types, which the API's metadata is written in. */
  jdbc: number;
}

/** What parameters are declared as. 0 leaves the type to Postgres. */
export const oid = {
  untyped: 0,
  bool: 16,
  bytea: 17,
  int8: 20,
  text: 25,
  float8: 701,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  numeric: 1700,
  uuid: 2950,
  jsonb: 3802,
} as const;

/** oid, name, kind, java.sql.Types, oid of the array type */
const scalars: Array<[number, string, FieldKind, number, number]> = [
  [16, "bool", "boolean", -7, 1000],
  [17, "bytea", "blob", -2, 1001],
  [19, "name", "string", 12, 1003],
  [20, "int8", "long", -5, 1016],
  [21, "int2", "long", 5, 1005],
  [23, "int4", "long", 4, 1007],
  [25, "text", "string", 12, 1009],
  [26, "oid", "long", -5, 1028],
  [114, "json", "string", 1111, 199],
  [142, "xml", "string", 2009, 143],
  [650, "cidr", "string", 1111, 651],
  [700, "float4", "double", 7, 1021],
  [701, "float8", "double", 8, 1022],
  [869, "inet", "string", 1111, 1041],
  [1042, "bpchar", "string", 1, 1014],
  [1043, "varchar", "string", 12, 1015],
  [1082, "date", "string", 91, 1182],
  [1083, "time", "string", 92, 1183],
  [1114, "timestamp", "timestamp", 93, 1115],
  [1184, "timestamptz", "timestamp", 93, 1185],
  [1186, "interval", "string", 1111, 1187],
  [1266, "timetz", "string", 92, 1270],
  [1560, "bit", "string", -7, 1561],
  [1562, "varbit", "string", 1111, 1563],
  [1700, "numeric", "decimal", 2, 1231],
  [2278, "void", "string", 1111, 0],
  [2950, "uuid", "string", 1111, 2951],
  [3802, "jsonb", "string", 1111, 3807],
];

/** Named, because the API's error names them. Whatever is not listed at all is unsupported too. */
const unsupported: Array<[number, string]> = [
  [18, "CHAR"],
  [600, "POINT"],
  [601, "LSEG"],
  [602, "PATH"],
  [603, "BOX"],
  [604, "POLYGON"],
  [628, "LINE"],
  [718, "CIRCLE"],
  [774, "MACADDR8"],
  [790, "MONEY"],
  [829, "MACADDR"],
  [2205, "regclass"],
  [2206, "regtype"],
  [3904, "INT4RANGE"],
  [3906, "NUMRANGE"],
  [3908, "TSRANGE"],
  [3910, "TSTZRANGE"],
  [3912, "DATERANGE"],
  [3926, "INT8RANGE"],
];

export const builtInTypes = new Map<number, PostgresType>();
for (const [id, name, kind, jdbc, array] of scalars) {
  const type: PostgresType = { name, kind, jdbc };
  builtInTypes.set(id, type);
  if (array) builtInTypes.set(array, arrayOf({ ...type, oid: id }));
}
for (const [id, name] of unsupported) builtInTypes.set(id, { name, kind: "unsupported", jdbc: 1111 });

function arrayOf(element: PostgresType & { oid: number }): PostgresType {
  return { name: `_${element.name}`, kind: "array", element, jdbc: 2003 };
}

/** Types outside the table: enums and their arrays are supported, domains arrive as what they are made of. */
export const lookUpTypes = `
  SELECT t.oid::int8, t.typname::text, t.typtype::text, e.oid::int8, e.typname::text, e.typtype::text
  FROM pg_catalog.pg_type t
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
  WHERE t.oid = ANY($1::text::oid[])`;

export function typeFromCatalog(row: Array<string | null>): [number, PostgresType] {
  const [id, name, type, elementId, elementName, elementType] = row;
  const kindOf = (typtype: string | null | undefined): FieldKind => (typtype === "e" ? "string" : "unsupported");
  if (!elementId) return [Number(id), { name: name!, kind: kindOf(type), jdbc: 12 }];
  const element = builtInTypes.get(Number(elementId)) ?? { name: elementName!, kind: kindOf(elementType), jdbc: 12 };
  if (element.kind === "unsupported" || element.kind === "array")
    return [Number(id), { name: name!, kind: "unsupported", jdbc: 2003 }];
  return [Number(id), arrayOf({ ...element, oid: Number(elementId) })];
}
