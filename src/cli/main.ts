import { EXIT } from './arguments.ts';
import { command } from './command.ts';

// The entry: everything else can be called from a test.

/** A reader that has seen enough (`postern wire postfix | head`) is no error. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.ok);
}

process.stdout.on('error', endQuietly);
try {
  process.exitCode = await command(process.argv.slice(2));
} catch (error) {
  process.stderr.write(
    `postern: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  );
  process.exitCode = EXIT.software;
}
