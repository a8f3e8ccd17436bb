// Serve tus by the npm packages @tus/server and @tus/file-store: node peer_server.cjs PACKAGES FOLDER
const require_from = require('node:module').createRequire(`${process.argv[2]}/`);
const { Server } = require_from('@tus/server');
const { FileStore } = require_from('@tus/file-store');

const server = new Server({ path: '/files', datastore: new FileStore({ directory: process.argv[3] }) });
const http = server.listen({ host: '127.0.0.1', port: 0 }, () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${http.address().port}/files` }));
});
