import { z } from 'zod';

/** What the manual says of one key, read from its schema. */
export interface KeyInfo {
  readonly description: string;
  /** Name of its value type. */
  readonly type: string;
  /** As an operator writes it; undefined: none that a file could state. */
  readonly fallback: unknown;
  /** Says the default where no single value can. */
  readonly fallbackText: string | undefined;
  readonly example: unknown;
}

interface Wrapper {
  readonly def: { readonly innerType: z.core.$ZodType };
}

function isWrapper(schema: z.core.$ZodType): schema is z.core.$ZodType & Wrapper {
  return (
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable
  );
}

/** The schema and all that it wraps, outermost first. */
function layers(schema: z.core.$ZodType): z.core.$ZodType[] {
  const all: z.core.$ZodType[] = [schema];
  for (;;) {
    const inner = all.at(-1);
    if (inner === undefined) return all;
    if (isWrapper(inner)) all.push(inner.def.innerType);
    else if (inner instanceof z.ZodPipe) all.push(inner.def.in);
    else return all;
  }
}

/** The keys of a table; null when the schema is no table with fixed keys. */
export function shapeOf(schema: z.core.$ZodType): Readonly<Record<string, z.core.$ZodType>> | null {
  const core = layers(schema).at(-1);
  if (core instanceof z.ZodObject) return core.shape;
  if (core instanceof z.ZodUnion) {
    for (const option of core.options) {
      const shape = shapeOf(option);
      if (shape !== null) return shape;
    }
  }
  return null;
}

/** The tables that a list of tables holds; null when the schema is no such list. */
export function tablesOf(schema: z.core.$ZodType): z.core.$ZodType | null {
  const core = layers(schema).at(-1);
  if (!(core instanceof z.ZodArray)) return null;
  return shapeOf(core.element) === null ? null : core.element;
}

/** Whether the table has keys of the operator's choosing, as [rules] has. */
export function isRecord(schema: z.core.$ZodType): boolean {
  return layers(schema).at(-1) instanceof z.ZodRecord;
}

/** The schema at a path of the file; null when there is none. */
export function schemaAt(root: z.core.$ZodType, path: readonly PropertyKey[]): z.core.$ZodType | null {
  let schema: z.core.$ZodType | null = root;
  for (const key of path) {
    if (schema === null) return null;
    const core: z.core.$ZodType | undefined = layers(schema).at(-1);
    if (core instanceof z.ZodArray) schema = core.element;
    else if (core instanceof z.ZodRecord) schema = core.valueType;
    else schema = shapeOf(schema)?.[String(key)] ?? null;
  }
  return schema;
}

export function keyInfo(schema: z.core.$ZodType): KeyInfo {
  const all = layers(schema);
  const metas = all.map((layer) => z.globalRegistry.get(layer));
  const first = (key: string): unknown => metas.find((meta) => meta?.[key] !== undefined)?.[key];
  const text = (key: string): string | undefined => {
    const value = first(key);
    return typeof value === 'string' ? value : undefined;
  };
  const examples = first('examples');
  const fallbackText = text('defaultText');
  return {
    description: text('description') ?? '',
    type: text('title') ?? typeName(all.at(-1) ?? schema),
    fallback: fallbackText === undefined ? fallback(all) : undefined,
    fallbackText,
    example: Array.isArray(examples) ? (examples as readonly unknown[])[0] : undefined,
  };
}

function fallback(all: readonly z.core.$ZodType[]): unknown {
  for (const layer of all) {
    if (layer instanceof z.ZodPrefault || layer instanceof z.ZodDefault) return layer.def.defaultValue;
  }
  return undefined;
}

function typeName(core: z.core.$ZodType): string {
  if (core instanceof z.ZodEnum) {
    return core.options
      .map((word) => `"${word}"`)
      .join(', ')
      .replace(/, (?=[^,]*$)/, ' or ');
  }
  if (core instanceof z.ZodArray) return `list, each a ${keyInfo(core.element).type}`;
  if (core instanceof z.ZodBoolean) return 'true or false';
  if (core instanceof z.ZodNumber) return 'number';
  if (core instanceof z.ZodRecord) return 'table';
  return 'text';
}
