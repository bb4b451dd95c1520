import { StintError } from "../errors.ts";
import type { Parameters, Statement } from "./port.ts";
import { quoteIdentifier } from "./port.ts";

/** The statement's text for this schema. */
export const textFor = (sql: string, schema: string): string => sql.replaceAll("{schema}", quoteIdentifier(schema));

const CAST = { text: "text", bigint: "int8", double: "float8", boolean: "bool", uuid: "text", json: "text" } as const;

/**
 * `:name` to `$n`, each with the type the Data API would declare for it, so that a cast that is missing there is missing here too.
 * A quoted literal is left alone; our statements hold neither comments nor dollar quotes beside parameters.
 */
export function positional(
  statement: Statement<Parameters, unknown>,
  schema: string,
): { text: string; names: string[] } {
  const names: string[] = [];
  const text = textFor(statement.sql, schema).replaceAll(
    /'(?:[^']|'')*'|(?<!:):([a-zA-Z]\w*)/g,
    (match, name?: string) => {
      if (name === undefined) return match;
      const type = statement.parameters[name];
      if (type === undefined)
        throw new StintError("option_invalid", `Statement ${statement.name} has no parameter ${name}.`);
      if (!names.includes(name)) names.push(name);
      return `$${names.indexOf(name) + 1}::${CAST[type]}`;
    },
  );
  return { text, names };
}
