// node ajv.cjs SCHEMA...: each compiles under Ajv's strict mode, with no warning, and takes its own examples; what does not is
// named. Ajv and ajv-formats are found by NODE_PATH.
const fs = require("fs");
const Ajv = require("ajv/dist/2020").default;
const addFormats = require("ajv-formats").default;

let wrong = 0;
const complain = (file, text) => {
  wrong += 1;
  console.error(`${file}: ${text}`);
};

for (const file of process.argv.slice(2)) {
  const logger = { log() {}, warn: (text) => complain(file, text), error: (text) => complain(file, text) };
  const ajv = addFormats(new Ajv({ strict: true, logger }));
  try {
    const schema = JSON.parse(fs.readFileSync(file, "utf8"));
    const validate = ajv.compile(schema);
    schema.examples.forEach((example, index) => {
      if (!validate(example)) complain(file, `example ${index}: ${ajv.errorsText(validate.errors)}`);
    });
  } catch (error) {
    complain(file, error.message);
  }
}
process.exitCode = wrong ? 1 : 0;
