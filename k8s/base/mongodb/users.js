// Runs once, when the data directory is empty: Spendscope's own user, who may use its database and nothing else.
const password = require("fs").readFileSync("/run/secrets/mongodb/password", "utf8").trim();
db.getSiblingDB("spendscope").createUser({ user: "spendscope", pwd: password, roles: [{ role: "readWrite", db: "spendscope" }] });
