// A program that segments photos with nothing but Node: bright pixels are class 1, others 0.
"use strict";
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const zlib = require("zlib");

function readPpm(file) {
  const data = fs.readFileSync(file);
  const header = /^P6\n(\d+) (\d+)\n255\n/.exec(data.subarray(0, 64).toString("latin1"));
  return { width: +header[1], height: +header[2], rgb: data.subarray(header[0].length) };
}

const table = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name), data]);
  let crc = 0xffffffff;
  for (const byte of body) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(data.length, 0);
  ends.writeUInt32BE((crc ^ 0xffffffff) >>> 0, 4);
  return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
}

function segment(photo, mask) {
  const { width, height, rgb } = readPpm(photo);
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rows[y * (width + 1) + x + 1] = rgb[3 * (y * width + x)] > 127 ? 1 : 0;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8;
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  const parts = [chunk("IHDR", header), chunk("IDAT", zlib.deflateSync(rows)), chunk("IEND", Buffer.alloc(0))];
  fs.writeFileSync(mask, Buffer.concat([signature, ...parts]));
}

if (process.argv[2] === "serve") {
  readline.createInterface({ input: process.stdin }).on("line", (photo) => {
    const start = process.hrtime.bigint();
    const mask = path.format({ dir: path.dirname(photo), base: path.basename(photo) + ".png" });
    segment(photo, mask);
    process.stdout.write(`${mask} ${Number(process.hrtime.bigint() - start) / 1e6}\n`);
  });
} else {
  segment(process.argv[2], process.argv[3]);
}
