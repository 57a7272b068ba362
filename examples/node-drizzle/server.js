// Notes over HTTP. The tables are there when this starts: premigrate has applied the migrations.
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { desc, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { notes } from "./schema.js";

const client = postgres(process.env.DATABASE_URL);
const db = drizzle({ client });

const routes = {
  // Whoever asks whether the process is alive, or ready, asked premigrate the same until now.
  "GET /live": async () => "alive",
  "GET /ready": async () => (await db.execute(sql`select 1`)) && "ready",
  "GET /notes": () => db.select().from(notes).orderBy(desc(notes.id)).limit(100),
  "POST /notes": async (request) => {
    const [note] = await db.insert(notes).values({ text: await text(request) }).returning();
    return note;
  },
};

const server = createServer(async (request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  try {
    const body = route ? await route(request) : "There is no such page.";
    response.writeHead(route ? 200 : 404, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});

const port = Number(process.env.PORT ?? 3000);
server.listen(port, () => console.log(`Listening on port ${port}`));

// Process 1 gets no signal that it does not handle.
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => server.close(() => client.end()));
}
