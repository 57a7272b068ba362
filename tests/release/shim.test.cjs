// The few lines of JavaScript in the npm package, around a small shell script in place of the executable. scripts/test-release
// runs this with each Node that is supported.
"use strict";
const assert = require("node:assert");
const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, test } = require("node:test");

const shim = path.join(__dirname, "../../scripts/packaging/npm/premigrate.cjs");
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "premigrate-shim-"));
after(() => fs.rmSync(folder, { recursive: true }));
const installed = path.join(folder, "node_modules/premigrate/bin/premigrate.cjs");
fs.mkdirSync(path.dirname(installed), { recursive: true });
fs.copyFileSync(shim, installed);

/** The executable, which is this shell script. */
function executable(script, name = `node_modules/@premigrate/${process.platform}-${process.arch}/bin/premigrate`) {
    const file = path.join(folder, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return file;
}

function run(args = [], env = {}, node = []) {
    const options = { encoding: "utf8", env: { PATH: process.env.PATH, ...env } };
    return spawnSync(process.execPath, [...node, installed, ...args], options);
}

test("arguments, environment, streams and working directory are passed on", () => {
    executable('for word; do printf "<%s>" "$word"; done; cat; pwd >&2; printf %s "$GREETING"');
    const args = ["--dir", "a b", "", "--", "ä", "$HOME", "*"];
    const options = { encoding: "utf8", cwd: folder, input: "typed", env: { PATH: process.env.PATH, GREETING: "hello" } };
    const { stdout, stderr, status } = spawnSync(process.execPath, [installed, ...args], options);
    assert.equal(stdout, "<--dir><a b><><--><ä><$HOME><*>typedhello");
    assert.equal(stderr, `${fs.realpathSync(folder)}\n`);
    assert.equal(status, 0);
});

test("it ends with the exit code of the executable", () => {
    for (const code of [0, 1, 10, 65, 75, 126, 143]) {
        executable(`exit ${code}`);
        const { status, stderr } = run();
        assert.deepEqual([status, stderr], [code, ""]);
    }
});

test("it ends by the signal that ended the executable", () => {
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGKILL", "SIGSEGV"]) {
        executable(`ulimit -c 0; kill -s ${signal.slice(3)} $$`);
        const { signal: ended, stderr } = run();
        assert.deepEqual([ended, stderr], [signal, ""]);
    }
});

test("where Node has execve, the executable has the PID that Node had", () => {
    executable("echo $$");
    const { pid, stdout, stderr } = run();
    assert.equal(stderr, "");
    assert.equal(Number(stdout) === pid, process.execve !== undefined);
});

test("a signal reaches the executable, and its answer is the exit code", async () => {
    executable("trap 'exit 42' TERM INT HUP QUIT; echo ready; while :; do sleep 0.05; done");
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]) {
        const child = spawn(process.execPath, [installed], { stdio: ["ignore", "pipe", "inherit"] });
        await new Promise((resolve) => child.stdout.once("data", resolve));
        child.kill(signal);
        const ended = await new Promise((resolve) => child.once("exit", (code, by) => resolve(code ?? by)));
        child.stdout.destroy();
        assert.equal(ended, 42, signal);
    }
});

test("PREMIGRATE_BINARY names another executable, which does not get the variable", () => {
    executable("echo installed; env");
    const other = executable("echo other; env", "other");
    const { stdout } = run([], { PREMIGRATE_BINARY: other });
    assert.match(stdout, /^other\n/);
    assert.doesNotMatch(stdout, /PREMIGRATE_BINARY/);
    const empty = run([], { PREMIGRATE_BINARY: "" }).stdout;
    assert.match(empty, /^installed\n/);
    assert.doesNotMatch(empty, /PREMIGRATE_BINARY/);
});

test("an executable that cannot be executed is reported as by a shell", () => {
    const plain = path.join(folder, "plain");
    fs.writeFileSync(plain, "text", { mode: 0o644 });
    for (const [file, code, word] of [[plain, 126, "EACCES"], [path.join(folder, "nothing"), 127, "ENOENT"]]) {
        const { status, stderr } = run([], { PREMIGRATE_BINARY: file });
        assert.equal(stderr, `premigrate: could not execute ${file}: ${word}\n`);
        assert.equal(status, code);
    }
});

test("a missing package is named, with the cure for each cause", () => {
    fs.rmSync(path.join(folder, "node_modules/@premigrate"), { recursive: true });
    const { status, stdout, stderr } = run(["status"]);
    assert.equal(status, 127);
    assert.equal(stdout, "");
    const machine = `${process.platform}-${process.arch}`;
    for (const words of [
        `@premigrate/${machine}`,
        "npm install --include=optional",
        `npm install --package-lock-only --os=${process.platform} --cpu=${process.arch}`,
        "supportedArchitectures",
    ]) {
        assert.ok(stderr.includes(words), stderr);
    }
});

test("on Windows, one sentence says where premigrate runs", () => {
    const preload = path.join(folder, "windows.cjs");
    fs.writeFileSync(preload, "Object.defineProperty(process, 'platform', { value: 'win32' })");
    const { status, stderr } = run([], {}, ["--require", preload]);
    assert.equal(status, 127);
    assert.match(stderr, /^premigrate: .*Windows.*wsl npx premigrate.*\n$/);
});

test("a program can ask for the path of the executable, and nothing else", () => {
    const file = executable("exit 1");
    const exported = require(installed);
    assert.deepEqual(Object.keys(exported), ["binaryPath"]);
    assert.equal(exported.binaryPath(), fs.realpathSync(file));
});

test("the file is short", () => {
    assert.ok(fs.readFileSync(shim, "utf8").split("\n").length <= 81);
});
