// Lets drizzle-kit's own generator write the statements for a series of schemas, each from the one before, and prints
// them as JSON: one object a line, {"what": ..., "statements": [...]}.
//
//   node generate.mjs v0|v1 ROLE
//
// The schemas have a role of this name, since roles are the whole server's.
import { createRequire } from "node:module";

const [version, role] = process.argv.slice(2);
const require = createRequire(new URL(`./${version}/package.json`, import.meta.url));
const pg = require("drizzle-orm/pg-core");
const { sql } = require("drizzle-orm");
const isOne = version === "v1";
const kit = require(isOne ? "drizzle-kit/api-postgres" : "drizzle-kit/api");

// What is generated is a step from one of these to the next. A schema has what `from(n)` guards from step n on, and
// what `until(n)` guards before it. Without hints, which only 1.x takes, no step may both add and remove things of a
// kind: the generator would ask whether one was renamed.
const steps = [
    "nothing",
    "a schema of everything",
    "columns added",
    "columns changed",
    "keys and checks added",
    "indexes added",
    "enums extended",
    "an enum without one of its values",
    "views and sequences changed",
    "policies and row level security added",
    "policies and row level security changed",
    "identities changed",
    "renames",
    "a schema without most of it",
    "nothing again",
];

function schema(step) {
    const from = (first) => step >= first;
    const until = (end) => step < end;
    const between = (first, end) => from(first) && until(end);
    const some = (is, value) => (is ? value : {});
    const all = (...list) => list.filter(Boolean);
    const renamed = isOne && from(12);
    if (step === 0 || step === 14) return {};

    const mood = pg.pgEnum("mood", [
        "bad",
        ...(between(6, 13) ? ["calm"] : []),
        "fine",
        ...(until(7) ? ["meh"] : []),
        ...(from(6) ? ["great"] : []),
    ]);
    const own = pg.pgSchema("own");
    const kind = own.enum("kind", ["a", "it's"]);
    const numbers = pg.pgSequence("numbers", from(8) ? { startWith: 10, increment: 2, cycle: true } : { startWith: 1 });
    const member = pg.pgRole(role, { createDb: from(10), inherit: true });

    const types = pg.pgTable("types", {
        serial: pg.serial("serial").primaryKey(),
        bigserial: pg.bigserial("bigserial", { mode: "number" }),
        smallserial: pg.smallserial("smallserial"),
        integer: pg.integer("integer"),
        bigint: pg.bigint("bigint", { mode: "bigint" }),
        smallint: pg.smallint("smallint"),
        boolean: pg.boolean("boolean").default(true),
        text: pg.text("text").default("it's; --> a text"),
        varchar: pg.varchar("varchar", { length: 20 }),
        char: pg.char("char", { length: 3 }),
        numeric: pg.numeric("numeric", { precision: 10, scale: 2 }).default("1.50"),
        real: pg.real("real"),
        double: pg.doublePrecision("double"),
        json: pg.json("json").default({ a: [1, "b"] }),
        jsonb: pg.jsonb("jsonb").default({ c: "d" }),
        time: pg.time("time", { precision: 3 }),
        timestamp: pg.timestamp("timestamp", { precision: 3 }).defaultNow(),
        timestamptz: pg.timestamp("timestamptz", { withTimezone: true }),
        date: pg.date("date"),
        interval: pg.interval("interval", { fields: "day to second" }),
        uuid: pg.uuid("uuid").defaultRandom(),
        inet: pg.inet("inet"),
        cidr: pg.cidr("cidr"),
        macaddr: pg.macaddr("macaddr"),
        macaddr8: pg.macaddr8("macaddr8"),
        point: pg.point("point"),
        line: pg.line("line"),
        bit: pg.bit("bit", { dimensions: 8 }),
        texts: pg.text("texts").array().default(["a", "b,c"]),
        mood: mood("mood").default("fine"),
        kind: kind("kind"),
        generated: pg.text("generated").generatedAlwaysAs(sql`lower("text")`),
        identity: pg.integer("identity").generatedAlwaysAsIdentity({ startWith: 100 }),
    });

    const parents = pg.pgTable(
        "parents",
        {
            id: pg.uuid("id").primaryKey().defaultRandom(),
            one: pg.integer("one"),
            two: pg.integer("two"),
            ...some(until(13), { three: pg.integer("three").notNull() }),
        },
        (t) => all(from(4) && pg.unique("parents_pair").on(t.one, t.two)),
    );

    const children = pg.pgTable(
        "children",
        {
            [renamed ? "number" : "id"]: pg.integer(renamed ? "number" : "id").notNull(),
            parent: pg.uuid("parent"),
            one: pg.integer("one"),
            two: pg.integer("two"),
            name: from(3) ? pg.text("name").notNull() : pg.varchar("name", { length: 20 }),
            longer: pg.varchar("longer", { length: from(3) ? 40 : 20 }),
            shorter: pg.varchar("shorter", { length: from(3) ? 10 : 20 }),
            wide: from(3) ? pg.bigint("wide", { mode: "number" }) : pg.integer("wide"),
            digits: pg.numeric("digits", { precision: from(3) ? 12 : 10, scale: 2 }),
            zoned: pg.timestamp("zoned", { withTimezone: from(3) }),
            required: from(3) ? pg.integer("required").notNull() : pg.integer("required"),
            optional: from(3) ? pg.integer("optional") : pg.integer("optional").notNull(),
            standard: from(3) ? pg.integer("standard").default(2) : pg.integer("standard").default(1),
            bare: from(3) ? pg.integer("bare") : pg.integer("bare").default(1),
            mood: mood("mood").default("fine").notNull(),
            ...some(until(13), { gone: pg.integer("gone"), gone_too: pg.integer("gone_too") }),
            ...some(from(2), {
                plain: pg.text("plain"),
                constant: pg.integer("constant").notNull().default(1),
                now: pg.timestamp("now").notNull().defaultNow(),
                random: pg.uuid("random").notNull().defaultRandom(),
                must: pg.integer("must").notNull(),
                list: pg.integer("list").array().notNull().default([]),
                object: pg.jsonb("object").notNull().default({}),
                of_enum: mood("of_enum"),
                unique: pg.integer("unique").unique(),
                counted: pg.serial("counted"),
                identity: pg.integer("identity").generatedByDefaultAsIdentity(
                    from(11) ? { increment: 5, maxValue: 1000000 } : {},
                ),
                computed: pg.integer("computed").generatedAlwaysAs(sql`one + two`),
                of_parent: pg.uuid("of_parent").references(() => parents.id, { onDelete: "set null" }),
            }),
        },
        (t) =>
            all(
                pg.index("children_first").on(t.one),
                between(4, 13) && pg.primaryKey({ name: "children_key", columns: [t[renamed ? "number" : "id"], t.name] }),
                from(4) && pg.unique("children_unique").on(t.one).nullsNotDistinct(),
                from(4) && pg.check(renamed ? "children_positive" : "children_check", sql`${t.one} > 0`),
                from(4) &&
                    pg.foreignKey({ name: "children_parent", columns: [t.parent], foreignColumns: [parents.id] })
                        .onDelete("cascade").onUpdate("no action"),
                between(5, 13) && pg.index(renamed ? "children_new" : "children_two").on(t.two),
                between(5, 13) && pg.uniqueIndex("children_both").on(t.one, t.two.desc().nullsLast()).where(sql`${t.one} > 1`),
                between(5, 13) && pg.index("children_lower").using("btree", sql`lower(${t.name})`),
                between(5, 13) && pg.index("children_list").using("gin", t.list).with({ fastupdate: false }),
                between(5, 13) && pg.index("children_online").on(t.wide).concurrently(),
            ),
    );

    const policies = (t) =>
        all(
            between(9, 13) &&
                pg.pgPolicy(renamed ? "readers" : "read", {
                    for: "select",
                    to: [member, "public"],
                    using: from(10) ? sql`id > 1` : sql`id > 0`,
                }),
            between(10, 13) && pg.pgPolicy("write", { as: "restrictive", for: "insert", withCheck: sql`id > 5` }),
        );
    const columns = { id: pg.integer("id").primaryKey() };
    // What has a policy has row level security, too.
    const guarded = pg.pgTable("guarded", columns, policies);
    const secure = isOne && between(9, 10) ? pg.pgTable.withRLS("secure", columns) : pg.pgTable("secure", columns);
    if (!isOne && between(9, 10)) secure.enableRLS();

    const things = own.table(renamed ? "objects" : "things", {
        id: pg.integer("id").primaryKey(),
        kind: kind("kind").default("a"),
    });
    const all_children = pg.pgView("all_children").as((q) => q.select({ one: children.one }).from(children));
    const some_children = pg.pgView(renamed ? "few_children" : "some_children", { one: pg.integer("one") })
        .with({ securityBarrier: from(8) }).as(sql`select one from children where one > 1`);
    const counts = pg.pgMaterializedView("counts", { total: pg.bigint("total", { mode: "number" }) })
        .with({ fillfactor: from(8) ? 80 : 90 }).as(sql`select count(*) as total from parents`);
    const empty = pg.pgMaterializedView("empty", { id: pg.uuid("id") }).withNoData().as(sql`select id from parents`);

    return {
        mood,
        own,
        kind,
        member,
        types,
        parents,
        children,
        guarded,
        ...some(until(13), { numbers, secure, things, some_children, counts, empty }),
        ...some(from(8) && until(13), { all_children }),
    };
}

// What 1.x is told, as it would be at its prompt.
const rename = (kind, from, to) => ({ type: "rename", kind, from, to });
const hints = {
    12: [
        rename("column", ["public", "children", "id"], ["public", "children", "number"]),
        rename("table", ["own", "things"], ["own", "objects"]),
        rename("view", ["public", "some_children"], ["public", "few_children"]),
        rename("index", ["public", "children", "children_two"], ["public", "children", "children_new"]),
        rename("check", ["public", "children", "children_check"], ["public", "children", "children_positive"]),
        rename("policy", ["public", "guarded", "read"], ["public", "guarded", "readers"]),
    ],
};

let before = await kit.generateDrizzleJson(schema(0));
for (let step = 1; step < steps.length; step++) {
    const after = await kit.generateDrizzleJson(schema(step), before.id);
    const statements = await kit.generateMigration(before, after, { hints: hints[step] });
    console.log(JSON.stringify({ what: steps[step], statements }));
    before = after;
}
