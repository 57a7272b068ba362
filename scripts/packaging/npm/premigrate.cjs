#!/usr/bin/env node
// Becomes the executable of premigrate for this machine, which is in a package of its own. Where Node can, by execve, as a
// shell's `exec` does it; else it starts the executable, passes signals on, and ends as it ended.
"use strict";
const { accessSync, constants } = require("node:fs");
const os = require("node:os");

const machine = `${process.platform}-${process.arch}`;

/** The executable's path. PREMIGRATE_BINARY names another one. */
function binaryPath() {
    return process.env.PREMIGRATE_BINARY || require.resolve(`@premigrate/${machine}/bin/premigrate`);
}

function fail(message, code) {
    process.stderr.write(`premigrate: ${message}\n`);
    process.exit(code);
}

/** Why there is no executable, and what to do. */
function missing() {
    if (process.platform === "win32") {
        return "there is no executable for Windows: run it in WSL (wsl npx premigrate), or in its container image";
    }
    return [
        `the package @premigrate/${machine} with the executable for this machine is not installed.`,
        "If optional packages were left out: npm install --include=optional",
        "If the lock file was written on another system: " +
            `npm install --package-lock-only --os=${process.platform} --cpu=${process.arch}, then npm ci`,
        "With pnpm or Yarn: name this system in supportedArchitectures",
    ].join("\n  ");
}

function find() {
    try {
        return binaryPath();
    } catch {
        return fail(missing(), 127);
    }
}

function become(path) {
    const args = process.argv.slice(2);
    // premigrate refuses a variable of its own that it does not know.
    const { PREMIGRATE_BINARY, ...env } = process.env;
    try {
        // Node would abort if execve failed.
        accessSync(path, constants.X_OK);
    } catch (error) {
        fail(`could not execute ${path}: ${error.code}`, error.code === "ENOENT" ? 127 : 126);
    }
    if (process.execve) {
        process.execve(path, [path, ...args], env);
    }
    // Listened for first, so that none ends Node, but not the executable.
    for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"]) {
        process.on(signal, () => child.kill(signal));
    }
    const child = require("node:child_process").spawn(path, args, { stdio: "inherit", env });
    child.on("error", (error) => fail(`could not execute ${path}: ${error.code}`, 126));
    child.on("exit", (code, signal) => {
        if (signal) {
            process.removeAllListeners(signal);
            process.kill(process.pid, signal);
        }
        // Also for a signal that Node ignores.
        process.exit(code ?? 128 + os.constants.signals[signal]);
    });
}

module.exports = { binaryPath };
if (require.main === module) {
    become(find());
}
