import { readFile } from 'node:fs/promises';

/** The version in package.json. */
export async function version(): Promise<string> {
  // The same distance from src/cli and from dist/cli.
  const manifest: unknown = JSON.parse(
    await readFile(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  if (typeof manifest === 'object' && manifest !== null && 'version' in manifest) {
    return String(manifest.version);
  }
  throw new Error('package.json has no version');
}
