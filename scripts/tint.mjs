#!/usr/bin/env node
// Compiles every expanded shader with Tint, the WGSL compiler of Dawn and Chrome.
//
//   node scripts/tint.mjs FOLDER [MODULES]
//
// FOLDER   holds the expanded shaders (*.wgsl, read recursively), written by `cargo test`
//          or `nin-wgpu dump shaders --out FOLDER`.
// MODULES  is the folder whose node_modules holds the npm package `webgpu` (Dawn for Node);
//          default: the current folder. scripts/setup-tests.sh installs it.
//
// Dawn's null backend is used: it validates everything and runs nothing, so no GPU is needed.
// naga, which the build uses, accepts some shaders that the WGSL standard forbids (a barrier in
// non-uniform control flow, for example); a browser or Dawn would refuse them, and so does this.
// f16 is an extension that shaders ask for themselves, and the device is asked for it.
// Subgroups are an extension: shaders that use them get the line `enable subgroups;`, which naga
// does not know, and the device is asked for the feature.
// Matrix units and integers of 64 bits are extensions of naga alone: those shaders are left out; the emulation of the former
// has the same text but for what multiplies, the twins in half precision of the latter but for the loads.
// Every entry point also becomes a compute pipeline, which checks bindings, workgroup sizes and
// workgroup memory against WebGPU's default limits. The emulated large tiles take more memory, as only devices with matrix
// units are given them, and the null backend has no more: of those the module is checked.
//
// Exit codes: 0 all shaders compile; 1 at least one does not, or there is none; 2 usage.

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, modules = '.'] = process.argv.slice(2);
if (!folder) {
  console.error('usage: node scripts/tint.mjs FOLDER [MODULES]');
  process.exit(2);
}

/** Paths of all .wgsl files under `root`, sorted. */
function shaderFiles(root) {
  const entries = readdirSync(root, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith('.wgsl'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** A device on Dawn's null backend with WebGPU's default limits, subgroups and f16, and the instance it belongs to. */
async function nullDevice() {
  const require = createRequire(join(resolve(modules), 'package.json'));
  const { create, globals } = await import(pathToFileURL(require.resolve('webgpu')));
  Object.assign(globalThis, globals);
  const gpu = create(['backend=null']);
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error('Dawn offers no null adapter');
  return { gpu, device: await adapter.requestDevice({ requiredFeatures: ['subgroups', 'shader-f16'] }) };
}

/** Runs `action` and returns its result and the text of the validation error it caused, if any. */
async function validated(device, action) {
  device.pushErrorScope('validation');
  let result, thrown;
  try {
    result = await action();
  } catch (error) {
    thrown = error;
  }
  const scoped = await device.popErrorScope();
  return { result, error: scoped?.message ?? thrown?.message };
}

const withoutComments = (code) => code.replace(/\/\/.*$/gm, '');

/** Messages about one shader: `{ errors, notes, entries }`, each a list of strings. */
async function checkShader(device, label, source) {
  const code = /\bsubgroup\w*\b/.test(withoutComments(source)) ? `enable subgroups; ${source}` : source;
  const errors = [];
  const notes = [];
  const { result: module, error } = await validated(device, () =>
    device.createShaderModule({ label, code }),
  );
  const info = await module.getCompilationInfo();
  for (const message of info.messages) {
    const text = `${label}:${message.lineNum}:${message.linePos}: ${message.type}: ${message.message}`;
    (message.type === 'error' ? errors : notes).push(text);
  }
  if (error && errors.length === 0) errors.push(`${label}: ${error}`);
  if (errors.length > 0) return { errors, notes, entries: [] };

  const entries = [...withoutComments(code).matchAll(/@compute\b[^{;]*?\bfn\s+(\w+)/g)].map((m) => m[1]);
  if (entries.length === 0) errors.push(`${label}: no compute entry point`);
  const fits = !/conv2d_emulated_/.test(label);
  for (const entryPoint of fits ? entries : []) {
    const { error: failure } = await validated(device, () =>
      device.createComputePipeline({
        label: `${label} ${entryPoint}`,
        layout: 'auto',
        compute: { module, entryPoint },
      }),
    );
    if (failure) errors.push(`${label} ${entryPoint}: ${failure}`);
  }
  return { errors, notes, entries };
}

const files = shaderFiles(folder);
if (files.length === 0) {
  console.error(`Tint: no .wgsl file under ${folder}; write the expanded shaders there first`);
  process.exit(1);
}
// The instance must outlive the device: were it collected, Dawn would crash in its own threads.
const { gpu, device } = await nullDevice();
globalThis.dawnInstance = gpu;
let entryPoints = 0;
let failures = 0;
let leftOut = 0;
for (const file of files) {
  const source = readFileSync(file, 'utf8');
  if (source.includes('enable wgpu_cooperative_matrix;') || /\bu64\b/.test(withoutComments(source))) {
    leftOut += 1;
    continue;
  }
  const report = await checkShader(device, relative(folder, file), source);
  entryPoints += report.entries.length;
  for (const text of report.notes) console.log(text);
  for (const text of report.errors) console.error(text);
  if (report.errors.length > 0) failures += 1;
}
device.destroy();
console.log(
  `Tint: ${files.length - leftOut} shaders, ${entryPoints} entry points, ` +
    (failures ? `${failures} REJECTED` : 'all accepted'),
);
// Dawn's instance keeps Node's event loop alive: leave explicitly.
process.exit(failures ? 1 : 0);
