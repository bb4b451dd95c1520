/** HTML by a template tag: every value is escaped, unless it was made by the tag itself. Attributes stand in double quotes. */
export class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export type Value = Html | string | number | null | undefined | false | readonly Value[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Html {
  let text = parts[0]!;
  for (const [index, value] of values.entries()) text += rendered(value) + parts[index + 1]!;
  return new Html(text);
}

function rendered(value: Value): string {
  if (value === null || value === undefined || value === false) return "";
  if (value instanceof Html) return value.text;
  if (typeof value === "object") return value.map(rendered).join("");
  return escaped(String(value));
}

// A right-to-left override in an identifier would turn round what stands after it: shown, not obeyed.
const escaped = (text: string): string =>
  text.replaceAll(/[&<>"']/g, (sign) => ENTITIES[sign]!).replaceAll(/[\u202a-\u202e\u2066-\u2069\0]/g, "\ufffd");

/** A link with a query; members without a value are left out. */
export function href(path: string, query: Readonly<Record<string, string | number | null | undefined>> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given.map(([name, value]): [string, string] => [name, String(value)])).toString();
  return text === "" ? path : `${path}?${text}`;
}
