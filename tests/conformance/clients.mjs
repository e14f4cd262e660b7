// What JavaScript's clients, query builders and ORMs ask of a catalog to make programs of it. `node clients.mjs NAME` runs one;
// PGHOST and the like say where, with objects.sql in the database. Prints what was found.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { PGHOST: host, PGPORT: port, PGUSER: user, PGPASSWORD: password, PGDATABASE: database } = process.env;
const url = `postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/${database}`;
const schemas = ["shop", "public", "Odd Schema"];
const tables = ["customers", "orders", "parts", "events", "names", "typed"];
const say = (name, found) => console.log(name, Array.isArray(found) ? found.length : typeof found === "object" ? Object.keys(found ?? {}).length : found);

async function tried(name, what) {
    try {
        say(name, await what());
    } catch (error) {
        console.log(name, "failed:", String(error.message).split("\n")[0]);
    }
}

function tool(name, ...given) {
    const path = `${process.env.NODE_MODULES}/.bin/${name}`;
    return execFileSync(path, given, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).length > 0;
}

const clients = {
    async pg() {
        const pg = require("pg");
        const Cursor = require("pg-cursor");
        const QueryStream = require("pg-query-stream");
        const client = new pg.Client();
        await client.connect();
        await tried("simple", async () => (await client.query("select 1; select name from shop.customers limit 2")).length);
        await tried("extended", async () => (await client.query("select id from shop.customers where name = $1", ["c1"])).rows);
        for (let i = 0; i < 3; i++)
            await tried("named", async () => (await client.query({ name: "by id", text: "select name, home from shop.customers where id = $1", values: [i] })).rows);
        await tried("array", async () => (await client.query({ text: "select * from shop.products where id = any($1)", values: [[1, 2]], rowMode: "array" })).rows);
        const cursor = client.query(new Cursor("select o.id, o.quantity from shop.orders o where o.id > $1", [1]));
        await tried("cursor", () => cursor.read(10));
        await cursor.close();
        await tried("stream", async () => {
            let count = 0;
            for await (const _ of client.query(new QueryStream("select id, name from shop.names", [], { batchSize: 7 }))) count++;
            return count;
        });
        await client.end();
    },
    async "pg-introspection"() {
        const pg = require("pg");
        const { makeIntrospectionQuery, parseIntrospectionResults } = require("pg-introspection");
        const client = new pg.Client();
        await client.connect();
        const { rows } = await client.query(makeIntrospectionQuery());
        say("introspection", parseIntrospectionResults(rows[0].introspection).classes);
        await client.end();
    },
    async postgres() {
        const postgres = require("postgres");
        const sql = postgres(url, { onnotice() {}, max: 2, fetch_types: true });
        await tried("select", () => sql`select ${sql(["id", "name"])} from shop.customers where tags && ${["a"]}::text[]`);
        await tried("insert", () => sql`insert into shop.scratch ${sql([{ x: 1 }, { x: 2 }])} returning *`);
        await tried("cursor", async () => {
            let count = 0;
            for await (const rows of sql`select * from shop.orders`.cursor(50)) count += rows.length;
            return count;
        });
        await tried("describe", async () => (await sql`select * from shop.customers where id = ${1}`.describe()).columns);
        await tried("transaction", () => sql.begin((sql) => [sql`delete from shop.scratch`, sql`select count(*) from shop.scratch`]));
        await tried("file", () => sql.unsafe("update shop.products set stock = 1 where id = 1; select max(stock) from shop.products"));
        await sql.end();
    },
    async kysely() {
        const { Kysely, PostgresDialect } = require("kysely");
        const db = new Kysely({ dialect: new PostgresDialect({ pool: new (require("pg").Pool)() }) });
        await tried("schemas", () => db.introspection.getSchemas());
        await tried("tables", () => db.introspection.getTables({ withInternalKyselyTables: true }));
        await tried("metadata", () => db.introspection.getMetadata());
        await tried("joined", () => db.withSchema("shop").selectFrom("customers as c").innerJoin("orders as o", "o.customer_id", "c.id")
            .select(["c.name", (eb) => eb.fn.sum("o.quantity").as("items")]).groupBy("c.name").having("c.name", "like", "c1%").execute());
        await tried("written", () => db.withSchema("shop").insertInto("products").values({ code: "ky", price: 3 })
            .onConflict((oc) => oc.column("id").doUpdateSet({ stock: (eb) => eb.ref("excluded.stock") })).returning(["id", "code"]).execute());
        await db.destroy();
        await tried("codegen", () => tool("kysely-codegen", "--dialect", "postgres", "--url", url, "--out-file", "kysely.d.ts", "--include-pattern", "*.*"));
    },
    async knex() {
        const knex = require("knex")({ client: "pg", connection: url, searchPath: ["shop", "public"] });
        const { SchemaInspector } = require("knex-schema-inspector");
        const inspector = (SchemaInspector ?? require("knex-schema-inspector").default)(knex);
        for (const name of ["tables", "tableInfo", "columns", "columnInfo", "foreignKeys"])
            await tried(name, () => inspector[name]());
        for (const table of tables) {
            for (const name of ["tableInfo", "hasTable", "columns", "columnInfo", "primary", "foreignKeys"])
                await tried(`${name} ${table}`, () => inspector[name](table));
            await tried(`column ${table}`, () => inspector.hasColumn(table, "id"));
            await tried(`info ${table}`, () => knex(table).withSchema("shop").columnInfo());
            await tried(`has ${table}`, () => knex.schema.withSchema("shop").hasColumn(table, "name"));
        }
        const source = {
            getMigrations: async () => ["one", "two"], getMigrationName: (name) => name,
            getMigration: async (name) => ({
                up: (knex) => name === "one" ? knex.schema.createTable("knexed", (table) => {
                    table.increments();
                    table.string("name").notNullable().index();
                    table.bigInteger("customer").references("id").inTable("shop.customers").onDelete("cascade");
                }) : knex.schema.alterTable("knexed", (table) => {
                    table.text("name").alter();
                    table.unique(["customer", "name"]);
                    table.renameColumn("customer", "who");
                }),
                down: (knex) => name === "one" ? knex.schema.dropTable("knexed") : knex.schema.alterTable("knexed", (table) => table.renameColumn("who", "customer")),
            }),
        };
        await tried("up", () => knex.migrate.latest({ migrationSource: source }));
        await tried("status", () => knex.migrate.status({ migrationSource: source }));
        await tried("upsert", () => knex("knexed").insert([{ name: "a", who: 1 }, { name: "b", who: 2 }]).onConflict(["who", "name"]).merge());
        await tried("with", () => knex.with("big", (query) => query.select("customer_id").from("orders").where("quantity", ">", 3))
            .from("big").join("customers", "customers.id", "big.customer_id").select("customers.name").orderBy("name").limit(4));
        await tried("changed", () => knex("knexed").update({ name: knex.raw("upper(??)", ["name"]) }).whereIn("who", knex("customers").select("id")).returning("*"));
        await tried("down", () => knex.migrate.rollback({ migrationSource: source }, true));
        await knex.destroy();
    },
    async objection() {
        const knex = require("knex")({ client: "pg", connection: url, searchPath: ["shop"] });
        const { Model } = require("objection");
        class Order extends Model { static tableName = "orders"; }
        class Customer extends Model {
            static tableName = "customers";
            static relationMappings = { orders: { relation: Model.HasManyRelation, modelClass: Order, join: { from: "customers.id", to: "orders.customer_id" } } };
        }
        Model.knex(knex);
        await tried("metadata", () => Customer.fetchTableMetadata());
        await tried("fetched", () => Customer.query().withGraphFetched("orders").whereExists(Customer.relatedQuery("orders").where("quantity", ">", 400)));
        await tried("joined", () => Customer.query().withGraphJoined("orders").where("customers.id", 3));
        await tried("patched", () => Order.query().patch({ quantity: 4 }).where("id", 1).returning("*"));
        await knex.destroy();
    },
    async sequelize() {
        const { Sequelize, DataTypes, Op } = require("sequelize");
        const sequelize = new Sequelize(url, { logging: false });
        const query = sequelize.getQueryInterface();
        for (const name of ["showAllTables", "showAllSchemas", "pgListEnums"])
            await tried(name, () => query[name]());
        for (const tableName of tables)
            for (const name of ["describeTable", "showIndex", "getForeignKeyReferencesForTable", "showConstraint", "tableExists"])
                await tried(`${name} ${tableName}`, () => query[name]({ tableName, schema: "shop" }));
        await tried("keys", () => query.getForeignKeysForTables(tables));
        const Person = sequelize.define("Person", { name: { type: DataTypes.STRING(40), unique: true }, mood: DataTypes.ENUM("a", "b"), tags: DataTypes.ARRAY(DataTypes.TEXT), extra: DataTypes.JSONB });
        const Thing = sequelize.define("Thing", { weight: DataTypes.DECIMAL(10, 2) }, { paranoid: true });
        Person.hasMany(Thing);
        Thing.belongsTo(Person);
        for (const options of [{}, { alter: true }])
            await tried("sync", () => sequelize.sync(options));
        await tried("created", () => Person.create({ name: "p", mood: "a", tags: ["x"], Things: [{ weight: 1 }] }, { include: Thing }));
        await tried("bulk", () => Person.bulkCreate([{ name: "p" }, { name: "q" }], { updateOnDuplicate: ["mood"], conflictAttributes: ["name"] }));
        await tried("or created", () => Person.findOrCreate({ where: { name: "r" } }));
        await tried("upserted", () => Person.upsert({ name: "q", extra: { a: 1 } }));
        await tried("found", () => Person.findAndCountAll({ include: [{ model: Thing, where: { weight: { [Op.gt]: 0 } }, required: false }], where: { "extra.a": 1 }, order: [["name", "DESC"]], limit: 3 }));
        await tried("destroyed", () => Thing.destroy({ where: {} }));
        await tried("dropped", () => sequelize.drop());
        await sequelize.close();
    },
    async "sequelize-auto"() {
        const { SequelizeAuto } = require("sequelize-auto");
        for (const schema of schemas)
            await tried(schema, async () => (await new SequelizeAuto(database, user, password, { host, port, dialect: "postgres", schema, views: true, directory: "auto", logging: false, caseFile: "l" }).run()).tables);
    },
    async typeorm() {
        require("reflect-metadata");
        const { DataSource, EntitySchema } = require("typeorm");
        const Author = new EntitySchema({ name: "author", columns: { id: { type: Number, primary: true, generated: true }, name: { type: String, unique: true, comment: "who" }, kind: { type: "enum", enum: ["a", "b"], default: "a" }, tags: { type: "text", array: true, nullable: true } },
            indices: [{ columns: ["kind", "name"] }], checks: [{ expression: "length(name) > 0" }], relations: { books: { type: "one-to-many", target: "book", inverseSide: "author" } } });
        const Book = new EntitySchema({ name: "book", columns: { id: { type: "uuid", primary: true, generated: "uuid" }, title: { type: "varchar", length: 80 }, made: { type: "timestamptz", createDate: true }, gone: { type: "timestamptz", deleteDate: true } },
            relations: { author: { type: "many-to-one", target: "author", inverseSide: "books", onDelete: "CASCADE" }, tags: { type: "many-to-many", target: "author", joinTable: true } } });
        const source = await new DataSource({ type: "postgres", url, entities: [Author, Book], synchronize: true, uuidExtension: "pgcrypto" }).initialize();
        await tried("again", () => source.synchronize());
        const runner = source.createQueryRunner();
        for (const name of ["getDatabases", "getCurrentDatabase", "getCurrentSchema", "getVersion"])
            if (runner[name]) await tried(name, () => runner[name]());
        await tried("tables", () => runner.getTables([...tables.map((name) => `shop.${name}`), "author", "book", "Odd Schema.Odd Table"]));
        await tried("views", () => runner.getViews(["shop.names", "shop.totals"]));
        for (const table of tables)
            await tried(table, () => runner.hasColumn(`shop.${table}`, "id"));
        const authors = source.getRepository("author");
        await tried("saved", () => source.getRepository("book").save({ title: "t", author: { id: 1 }, tags: [] }).catch(() => authors.save({ name: "x", books: [] })));
        await tried("found", () => authors.find({ relations: { books: true }, where: { books: { title: "t" } }, order: { name: "ASC" }, take: 2 }));
        await tried("built", () => authors.createQueryBuilder("a").leftJoinAndSelect("a.books", "b").where("a.kind = :kind", { kind: "a" }).orderBy("b.title").skip(0).take(5).getManyAndCount());
        await tried("upserted", () => authors.upsert([{ name: "x", kind: "b" }], ["name"]));
        await tried("log", async () => (await source.driver.createSchemaBuilder().log()).upQueries);
        await tried("dropped", () => source.dropDatabase());
        await source.destroy();
    },
    async "extract-pg-schema"() {
        const { extractSchemas } = await import(`${process.env.NODE_MODULES}/extract-pg-schema/lib/index.js`).catch(() => require("extract-pg-schema"));
        await tried("schemas", () => extractSchemas({ connectionString: url }, { schemas: ["Odd Schema"], resolveViews: true }));
    },
    async drizzle() {
        await tried("introspect", () => tool("drizzle-kit", "introspect", "--dialect", "postgresql", "--url", url, "--out", "drizzle"));
        fs.writeFileSync("schema.ts", `
            import { pgTable, serial, text, integer, pgEnum, index } from "drizzle-orm/pg-core";
            export const kind = pgEnum("kind", ["a", "b"]);
            export const drizzled = pgTable("drizzled", { id: serial("id").primaryKey(), name: text("name").notNull().unique(), n: integer("n") }, (t) => [index("by_n").on(t.n)]);`);
        for (let i = 0; i < 2; i++)
            await tried("push", () => tool("drizzle-kit", "push", "--force", "--dialect", "postgresql", "--url", url, "--schema", "schema.ts", "--tablesFilter", "drizzled"));
    },
    async databases() {
        const connect = require("@databases/pg").default;
        const asked = require("@databases/pg-schema-introspect");
        const connection = connect({ connectionString: url, bigIntMode: "string" });
        for (const schemaName of [undefined, ...schemas])
            for (const name of Object.keys(asked).filter((name) => name.startsWith("get")))
                await tried(`${name} ${schemaName}`, () => asked[name](connection, { schemaName }));
        await tried("whole", () => asked.default(connection));
        await connection.dispose();
    },
    async "pg-structure"() {
        const pgStructure = require("pg-structure").default;
        for (const options of [{ includeSchemas: schemas }, { includeSystemSchemas: true, excludeSchemas: ["information_schema"] }])
            await tried("structure", async () => (await pgStructure(url, options)).tables);
    },
    async zapatos() {
        const { generate } = require("zapatos/generate");
        await tried("generated", async () => (await generate({ db: { connectionString: url }, outDir: ".", schemas: { shop: { include: "*", exclude: [] }, "Odd Schema": { include: "*", exclude: [] } }, debugListener() {}, progressListener() {} })) ?? "done");
    },
};

if (process.argv[2] === "--list") {
    console.log(Object.keys(clients).join("\n"));
} else {
    await clients[process.argv[2]]();
    process.exit(0);
}
