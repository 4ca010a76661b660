// Descriptors by face-api's face-recognition network with its public weights, on TensorFlow.js' CPU backend:
//   npm install --ignore-scripts @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0
//   node .../face_api.cjs IMAGES.json OUT.json      (in the same folder; images are [N][150][150][3], 0 to 255)
const Module = require('module'), fs = require('fs'), path = require('path');
const here = Module.createRequire(process.cwd() + '/');
const resolve = Module._resolveFilename;
Module._resolveFilename = (name, ...rest) => name === '@tensorflow/tfjs-node' ? here.resolve('@tensorflow/tfjs') : resolve(name, ...rest);
const folder = path.dirname(here.resolve('@vladmandic/face-api/package.json'));
const faceapi = require(path.join(folder, 'dist', 'face-api.node.js'));

async function main(images, out) {
  await faceapi.tf.setBackend('cpu');
  const net = new faceapi.FaceRecognitionNet();
  await net.loadFromDisk(path.join(folder, 'model'));
  const found = [];
  for (const image of JSON.parse(fs.readFileSync(images))) {
    found.push(Array.from(await net.computeFaceDescriptor(faceapi.tf.tensor3d(image))));
  }
  fs.writeFileSync(out, JSON.stringify(found));
}
main(...process.argv.slice(2));
