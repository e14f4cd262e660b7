// JavaScript's drivers and pools, as an application uses them: `node node.mjs CLIENT CONNECTIONS WORD`; where and who stand in PGHOST
// and the like. Each opens so many connections at once, reads the word over each, and only then lets them go.
import pg from 'pg';
import postgres from 'postgres';

const [, , client, connections, word] = process.argv;
const count = Number(connections);
const read = `select '${word}' as word`;
const options = process.env.PGOPTIONS;

function check(rows) {
  if (rows[0].word !== word) throw new Error(`the database answered ${JSON.stringify(rows)}`);
}

const clients = {
  async pg() {
    const opened = await Promise.all(Array.from({ length: count }, async () => {
      const one = new pg.Client({ options });
      await one.connect();
      return one;
    }));
    for (const one of opened) check((await one.query(read)).rows);
    await Promise.all(opened.map((one) => one.end()));
  },
  async 'pg-pool'() {
    const pool = new pg.Pool({ options, max: count });
    const borrowed = await Promise.all(Array.from({ length: count }, () => pool.connect()));
    for (const one of borrowed) check((await one.query(read)).rows);
    for (const one of borrowed) one.release();
    await pool.end();
  },
  async postgres() {
    const connection = { application_name: process.env.PGAPPNAME, ...(options ? { options } : {}) };
    const sql = postgres({ max: count, connection });
    const reserved = await Promise.all(Array.from({ length: count }, () => sql.reserve()));
    for (const one of reserved) check(await one.unsafe(read));
    for (const one of reserved) one.release();
    await sql.end();
  },
};

await clients[client]();
