// Upload by the npm package tus-js-client: node peer_client.cjs PACKAGES
// One JSON line in, {endpoint, file, metadata}, gives one out when the upload is over: {url} or {error}.
const fs = require('node:fs');
const readline = require('node:readline');
const tus = require('node:module').createRequire(`${process.argv[2]}/`)('tus-js-client');

const answer = (result) => console.log(JSON.stringify(result));

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { endpoint, file, metadata } = JSON.parse(line);
  const upload = new tus.Upload(fs.createReadStream(file), {
    endpoint,
    metadata,
    uploadSize: fs.statSync(file).size,
    retryDelays: null,
    onError: (error) => answer({ error: String(error) }),
    onSuccess: () => answer({ url: upload.url }),
  });
  upload.start();
});
