// Runs a WASI program under Node 18 or later: `node xtask/wasi.mjs PROGRAM.wasm ARGUMENTS...`. It may see the
// repository, under its real path, for the files that the tests read.

import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { argv, env, exit } from "node:process";
import { fileURLToPath } from "node:url";
import { WASI } from "node:wasi";

const repository = dirname(dirname(fileURLToPath(import.meta.url)));
const wasi = new WASI({ version: "preview1", args: argv.slice(2), env, preopens: { [repository]: repository } });
const { instance } = await WebAssembly.instantiate(await readFile(argv[2]), { wasi_snapshot_preview1: wasi.wasiImport });
exit(wasi.start(instance));
