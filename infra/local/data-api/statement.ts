/** SQL cut at its named parameters: parts[0] :names[0] parts[1] :names[1] ... */
export interface Statement {
  parts: string[];
  names: string[];
  /** The highest $1, $2 ... that the text itself has; 0 for none. */
  positional: number;
  /** Something other than space and comments follows a semicolon. */
  several: boolean;
}

const cache = new Map<string, Statement>();
const cacheSize = 1000;

export function readStatement(sql: string): Statement {
  const known = cache.get(sql);
  if (known) return known;
  const statement = split(sql);
  if (cache.size >= cacheSize) cache.delete(cache.keys().next().value!);
  cache.set(sql, statement);
  return statement;
}

/**
 * Tokens in which neither a colon nor a semicolon counts, then those that do. Sticky, tried in this order.
 * E'' literals know backslashes; U&'' and B'' end like plain ones; dollar quotes end at their own tag.
 */
const tokens = {
  skip: /[^:;'"$/\-A-Za-z_\u0080-\uffff]+|--[^\n\r]*|[/-]/y,
  escapeLiteral: /[eE]'(?:[^'\\]|''|\\[\s\S])*(?:'|$)/y,
  literal: /'(?:[^']|'')*(?:'|$)/y,
  identifier: /"(?:[^"]|"")*(?:"|$)/y,
  positional: /\$\d+/y,
  dollarTag: /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y,
  // A word takes its dollar signs and digits with it, so that a$b$ opens no quote.
  word: /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y,
  parameter: /:(\w+)/y,
  cast: /::/y,
};

function split(sql: string): Statement {
  const parts: string[] = [];
  const names: string[] = [];
  let positional = 0;
  let start = 0;
  let ended = false;
  let several = false;
  for (let at = 0; at < sql.length; ) {
    const end = endOfToken(sql, at);
    if (end.name !== undefined) {
      parts.push(sql.slice(start, at));
      names.push(end.name);
      start = end.index;
    }
    if (end.positional !== undefined) positional = Math.max(positional, end.positional);
    if (sql[at] === ";") ended = true;
    else if (ended && !end.blank && /\S/.test(sql.slice(at, end.index))) several = true;
    at = end.index;
  }
  parts.push(sql.slice(start));
  // The body of a BEGIN ATOMIC function has semicolons of its own: Postgres itself counts the statements then.
  return { parts, names, positional, several: several && !/\bbegin\s+atomic\b/i.test(sql) };
}

interface Token {
  index: number;
  name?: string;
  positional?: number;
  blank?: boolean;
}

function endOfToken(sql: string, at: number): Token {
  if (sql.startsWith("/*", at)) return { index: endOfComment(sql, at), blank: true };
  if (sql.startsWith("--", at)) return { index: match(tokens.skip, sql, at)!, blank: true };
  const dollar = sql[at] === "$" ? match(tokens.dollarTag, sql, at) : undefined;
  if (dollar !== undefined) {
    const close = sql.indexOf(sql.slice(at, dollar), dollar);
    return { index: close < 0 ? sql.length : close + (dollar - at) };
  }
  const positional = sql[at] === "$" ? match(tokens.positional, sql, at) : undefined;
  if (positional !== undefined) return { index: positional, positional: Number(sql.slice(at + 1, positional)) };
  const index =
    match(tokens.escapeLiteral, sql, at) ??
    match(tokens.word, sql, at) ??
    match(tokens.literal, sql, at) ??
    match(tokens.identifier, sql, at) ??
    match(tokens.cast, sql, at);
  if (index !== undefined) return { index };
  const named = match(tokens.parameter, sql, at);
  if (named !== undefined) return { index: named, name: sql.slice(at + 1, named) };
  return { index: match(tokens.skip, sql, at) ?? at + 1 };
}

function match(token: RegExp, sql: string, at: number): number | undefined {
  token.lastIndex = at;
  return token.test(sql) ? token.lastIndex : undefined;
}

/** Comments nest in Postgres. */
function endOfComment(sql: string, at: number): number {
  let depth = 0;
  const edge = /\/\*|\*\//g;
  edge.lastIndex = at;
  for (let found = edge.exec(sql); found; found = edge.exec(sql)) {
    depth += found[0] === "/*" ? 1 : -1;
    if (depth === 0) return edge.lastIndex;
  }
  return sql.length;
}
