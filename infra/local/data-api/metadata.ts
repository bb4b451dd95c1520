import type { Column, Session } from "./session.ts";
import { oid, type PostgresType } from "./types.ts";

const ofTables = `
  SELECT a.attrelid::int8, a.attnum::int8, c.relname::text, a.attnotnull,
         a.attidentity <> '' OR COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = ANY($1::text::oid[])`;

interface TableColumn {
  table: string;
  notNull: boolean;
  autoIncrement: boolean;
}

/** columnMetadata, which a caller gets only when it asks. */
export async function columnMetadata(session: Session, columns: Column[], types: PostgresType[]): Promise<object[]> {
  const tables = await tableColumns(session, columns);
  return columns.map((column, index) => {
    const type = types[index]!;
    const from = tables.get(`${column.tableID}.${column.columnID}`);
    return {
      arrayBaseColumnType: type.element?.jdbc ?? 0,
      isAutoIncrement: from?.autoIncrement ?? false,
      isCaseSensitive: type.kind === "string" && type.jdbc === 12,
      isCurrency: false,
      isSigned: ["long", "double", "decimal"].includes(type.kind) && type.name !== "oid",
      label: column.name,
      name: column.name,
      // 0 no, 1 yes, 2 unknown: an expression
      nullable: from === undefined ? 2 : from.notNull ? 0 : 1,
      ...precisionAndScale(column),
      schemaName: "",
      tableName: from?.table ?? "",
      type: type.jdbc,
      typeName: type.name,
    };
  });
}

async function tableColumns(session: Session, columns: Column[]): Promise<Map<string, TableColumn>> {
  const ids = [...new Set(columns.map(({ tableID }) => tableID))].filter((id) => id !== 0);
  if (ids.length === 0) return new Map();
  const query = { text: ofTables, types: [oid.text], values: [`{${ids.join(",")}}`] };
  const { rows } = await session.run([query]);
  return new Map(
    rows.map(([table, column, name, notNull, autoIncrement]) => [
      `${table}.${column}`,
      { table: name!, notNull: notNull === "t", autoIncrement: autoIncrement === "t" },
    ]),
  );
}

const precisions: Record<number, [number, number]> = {
  16: [1, 0],
  20: [19, 0],
  21: [5, 0],
  23: [10, 0],
  700: [8, 8],
  701: [17, 17],
  1082: [13, 0],
  1083: [15, 6],
  1114: [29, 6],
  1184: [35, 6],
};

function precisionAndScale({ dataTypeID, dataTypeModifier }: Column): { precision: number; scale: number } {
  const [precision, scale] = precisions[dataTypeID] ?? [2147483647, 0];
  if (dataTypeModifier < 4) return { precision: dataTypeID === oid.numeric ? 0 : precision, scale };
  const modifier = dataTypeModifier - 4;
  if (dataTypeID === oid.numeric) return { precision: modifier >> 16, scale: modifier & 0xffff };
  return { precision: dataTypeID === 1042 || dataTypeID === 1043 ? modifier : precision, scale };
}
