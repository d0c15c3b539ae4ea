import { run } from './process.ts';

/** Numbers of a user that a Debian package made. */
export async function idsOf(user: string): Promise<{ uid: number; gid: number }> {
  const uid = await run('id', ['-u', user]);
  const gid = await run('id', ['-g', user]);
  if (uid.code !== 0 || gid.code !== 0) throw new Error(`no user ${user}: ${uid.stderr}`);
  return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
}
