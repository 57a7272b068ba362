// Reads a log of SARIF 2.1.0 from standard input, and says what of it is not as OASIS's schema requires; nothing if all is.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const Ajv = require("ajv");
// The schema is one of JSON Schema's draft 4, in which `id` is `$id`.
const ajv = new Ajv({ schemaId: "id", allErrors: true, logger: false, meta: require("ajv/lib/refs/json-schema-draft-04.json") });
const schema = require("@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json");

if (!ajv.validate(schema, JSON.parse(readFileSync(0, "utf8")))) {
    for (const { dataPath, message } of ajv.errors) console.log(`${dataPath} ${message}`);
}
