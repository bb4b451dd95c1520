/** A template against CloudFormation's own description of each resource: required and unknown properties, types, recursively. */
import { loadAwsServiceSpec } from "@aws-cdk/aws-service-spec";
import type { Property, PropertyType, SpecDatabase } from "@aws-cdk/service-spec-types";

export interface Resource {
  readonly Type: string;
  readonly DependsOn?: string | string[];
  readonly DeletionPolicy?: string;
  readonly UpdateReplacePolicy?: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template is whatever CloudFormation takes
  readonly Properties: any;
}

export interface Template {
  readonly Parameters?: Record<string, unknown>;
  readonly Resources: Record<string, Resource>;
  readonly Outputs?: Record<string, unknown>;
}

const PSEUDO = /^AWS::(AccountId|NoValue|Partition|Region|StackId|StackName|URLSuffix)$/;

/** Everything that is wrong with a template, one line each. */
export async function problemsOf(template: Template): Promise<string[]> {
  const database = await loadAwsServiceSpec();
  const problems: string[] = [];
  for (const [name, resource] of Object.entries(template.Resources)) {
    if (resource.Type.startsWith("Custom::")) continue;
    const [type] = database.lookup("resource", "cloudFormationType", "equals", resource.Type);
    if (type === undefined) problems.push(`${name}: there is no ${resource.Type}`);
    else checkProperties(database, type.properties, resource.Properties ?? {}, name, problems);
    for (const one of [resource.DependsOn ?? []].flat())
      if (!(one in template.Resources)) problems.push(`${name} depends on ${one}, which is not there`);
  }
  checkReferences(database, template, problems);
  return problems;
}

function checkProperties(
  database: SpecDatabase,
  properties: Record<string, Property>,
  given: Record<string, unknown>,
  path: string,
  problems: string[],
): void {
  for (const [name, property] of Object.entries(properties))
    if (property.required && given[name] === undefined) problems.push(`${path}.${name} is required`);
  for (const [name, value] of Object.entries(given)) {
    const property = properties[name];
    if (property === undefined) problems.push(`${path}.${name} is unknown`);
    else {
      const types = [property.type, ...(property.previousTypes ?? [])];
      const found = types.map((type) => wrong(database, type, value, `${path}.${name}`));
      if (!found.some((list) => list.length === 0)) problems.push(...found[0]!);
    }
  }
}

const isIntrinsic = (value: object): boolean => {
  const keys = Object.keys(value);
  return keys.length === 1 && /^(Ref$|Fn::)/.test(keys[0]!);
};

function wrong(database: SpecDatabase, type: PropertyType, value: unknown, path: string): string[] {
  if (value !== null && typeof value === "object" && isIntrinsic(value)) return [];
  const mismatch = (what: string) => [`${path} is ${JSON.stringify(value)?.slice(0, 80)}, not ${what}`];
  switch (type.type) {
    case "string":
    case "date-time":
      return ["string", "number", "boolean"].includes(typeof value) ? [] : mismatch("a text");
    case "integer":
      return Number.isInteger(Number(value)) && value !== "" ? [] : mismatch("a whole number");
    case "number":
      return Number.isFinite(Number(value)) && value !== "" ? [] : mismatch("a number");
    case "boolean":
      return ["true", "false"].includes(String(value)) ? [] : mismatch("a boolean");
    case "array":
      return Array.isArray(value)
        ? value.flatMap((one, place) => wrong(database, type.element, one, `${path}[${place}]`))
        : mismatch("a list");
    case "map":
      return value !== null && typeof value === "object"
        ? Object.entries(value).flatMap(([key, one]) => wrong(database, type.element, one, `${path}.${key}`))
        : mismatch("a map");
    case "ref": {
      if (value === null || typeof value !== "object" || Array.isArray(value)) return mismatch("an object");
      const problems: string[] = [];
      const definition = database.get("typeDefinition", type.reference.$ref);
      checkProperties(database, definition.properties, value as Record<string, unknown>, path, problems);
      return problems;
    }
    case "union": {
      const found = type.types.map((one) => wrong(database, one, value, path));
      return found.some((list) => list.length === 0) ? [] : found[0]!;
    }
    case "json":
    case "tag":
      return value !== null && typeof value === "object" ? [] : mismatch("an object");
    default:
      return [];
  }
}

function checkReferences(database: SpecDatabase, template: Template, problems: string[]): void {
  const known = (name: string): boolean =>
    PSEUDO.test(name) || name in template.Resources || name in (template.Parameters ?? {});
  const attribute = (name: string, of: string, path: string): void => {
    const resource = template.Resources[name];
    if (resource === undefined) problems.push(`${path} gets an attribute of ${name}, which is not there`);
    else if (!resource.Type.startsWith("Custom::")) {
      const [type] = database.lookup("resource", "cloudFormationType", "equals", resource.Type);
      // Nested ones stand in the description by their first part or with dots.
      const attributes = Object.keys(type?.attributes ?? {});
      if (!attributes.includes(of)) problems.push(`${path}: ${resource.Type} has no attribute ${of}`);
    }
  };
  const walk = (value: unknown, path: string): void => {
    if (Array.isArray(value)) for (const [place, one] of value.entries()) walk(one, `${path}[${place}]`);
    else if (value !== null && typeof value === "object")
      for (const [key, one] of Object.entries(value)) {
        if (key === "Ref" && typeof one === "string") {
          if (!known(one)) problems.push(`${path} refers to ${one}, which is not there`);
        } else if (key === "Fn::GetAtt") {
          const [name, ...of] = Array.isArray(one) ? (one as string[]) : String(one).split(".");
          attribute(name!, of.join("."), path);
        } else if (key === "Fn::Sub") {
          const [text, names = {}] = [one].flat() as [string, Record<string, unknown>?];
          for (const [, name] of text.matchAll(/\$\{([^!}][^}]*)\}/g)) {
            const [first, ...of] = name!.split(".");
            if (first! in names) continue;
            if (of.length > 0) attribute(first!, of.join("."), path);
            else if (!known(first!)) problems.push(`${path} substitutes ${first}, which is not there`);
          }
          walk(names, path);
        } else walk(one, `${path}.${key}`);
      }
  };
  walk(template.Resources, "Resources");
  walk(template.Outputs ?? {}, "Outputs");
}
