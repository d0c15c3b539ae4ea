import { createServer, type IncomingHttpHeaders } from 'node:http';

import { z } from 'zod';

const NOTICE = z.object({
  event: z.string(),
  subject: z.string(),
  text: z.string(),
  advice: z.array(z.string()),
  facts: z.record(z.string(), z.unknown()),
});

export interface HeardNotice extends z.infer<typeof NOTICE> {
  readonly headers: IncomingHttpHeaders;
}

/** An HTTP server that takes what `notices.webhook` sends. */
export interface Webhook extends AsyncDisposable {
  readonly url: string;
  readonly notices: readonly HeardNotice[];
}

export async function startWebhook(): Promise<Webhook> {
  const notices: HeardNotice[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const read = NOTICE.safeParse(JSON.parse(body));
      if (read.success) notices.push({ ...read.data, headers: request.headers });
      response.writeHead(read.success ? 204 : 400).end();
    });
  });
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
  return {
    url: `http://127.0.0.1:${port}/hook`,
    notices,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
