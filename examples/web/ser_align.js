// Emotions in a voice over time, in a browser: model.onnx of export_onnx.py, run by onnxruntime-web.
//
// The recording is cut at its pauses, scored in windows of two seconds and cross-faded as predict.py does
// (speech_ser_align.py, timeline_ser_align.py and quality_ser_align.py say why). index.html shows the result.

const RATE = 16000; // Hz
const FRAME = 2048, HOP = 128; // samples: levels are measured over 128 ms, every 8 ms
const SILENCE_DB = -80, PHRASE_RANGE_DB = 70, SPEECH_RANGE_DB = 40, DEFAULT_TRIM_DB = 30;
const NOISE_SHARE = 0.15, STEADY_DB = 2, ABOVE_NOISE_DB = 5, LEAST_RANGE_DB = 10;
const PAUSE = 0.25, MARGIN = 0.125, SHORTEST_PHRASE = 0.1, WINDOW = 2, STEP = 0.1; // seconds
const CLICK = FRAME + 512; // samples
const SPECTRUM = 1024, BANDS = 32, BAND_WIDTH = RATE / 2 / BANDS; // samples; bands of 250 Hz
const BAND_RANGE_DB = 50, NOISE_SPREAD_DB = 6, NOISE_RANGE_DB = 30, FEWEST_FRAMES = 16, CLEARLY_BELOW = 0.85;
const LONGEST_MINUTES = 10;

// ------------------------------------------------------------------------------------------------- model

/** Load the model: its session and its settings, such as `labels`, `unsure_below` and `trim_db`. */
export async function loadModel(url) {
  const ort = await import("./ort.wasm.bundle.min.mjs").catch(() => {
    throw new Error("onnxruntime-web is missing: examples/README.md says how to fetch it.");
  });
  ort.env.wasm.numThreads = 1; // several need a server that isolates the page
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is missing: export_onnx.py --output examples/web/${url} writes it.`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const session = await ort.InferenceSession.create(bytes).catch((error) => {
    throw new Error(`${url} cannot be loaded (${error.message}): give a file that export_onnx.py wrote.`);
  });
  const settings = readMetadata(bytes);
  if (!settings.labels) throw new Error(`${url} names no labels: give a file that export_onnx.py wrote.`);
  return { ort, session, settings };
}

/** The metadata of export_onnx.py in an ONNX file: entries of field 14 of its protocol buffer, a key and a JSON text. */
function readMetadata(bytes) {
  const metadata = {};
  for (const [field, content] of readFields(bytes)) {
    if (field !== 14) continue;
    const [key, value] = [...readFields(content)].map(([, text]) => new TextDecoder().decode(text));
    if (!key.includes(".")) metadata[key] = JSON.parse(value); // with a dot: notes of onnxruntime's own
  }
  return metadata;
}

/** The fields of a protocol-buffer message that have a length: [number, bytes] each. */
function* readFields(bytes) {
  let place = 0;
  const readNumber = () => {
    let number = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = bytes[place++];
      number += (byte & 127) * unit;
      if (byte < 128) return number;
    }
  };
  while (place < bytes.length) {
    const tag = readNumber(), kind = tag % 8;
    if (kind === 0) readNumber();
    else if (kind !== 2) place += kind === 1 ? 8 : 4;
    else {
      const length = readNumber();
      yield [Math.floor(tag / 8), bytes.subarray(place, place + length)];
      place += length;
    }
  }
}

/** Probabilities of one utterance at 16 kHz. */
async function score({ ort, session }, waveform) {
  const shape = [1, waveform.length];
  const { logits } = await session.run(
    {
      waveform: new ort.Tensor("float32", waveform, shape),
      attention_mask: new ort.Tensor("int64", new BigInt64Array(waveform.length).fill(1n), shape),
    },
    ["logits"],
  );
  const highest = Math.max(...logits.data);
  const exponents = Array.from(logits.data, (logit) => Math.exp(logit - highest));
  const sum = exponents.reduce((total, each) => total + each, 0);
  return exponents.map((each) => each / sum);
}

/**
 * Score a recording at 16 kHz.
 *
 * Returns `windows` with `start` and `end` in samples, the number of their `phrase` and `probabilities`, and `segments`
 * of one emotion each with `start` and `end` in seconds, `label`, `score` and `unsure`.
 */
export async function analyse(model, waveform) {
  const windows = [];
  for (const [phrase, [start, end]] of findPhrases(waveform, model.settings.trim_db ?? DEFAULT_TRIM_DB).entries()) {
    for (const from of findWindows(start, end)) {
      const to = Math.min(end, from + WINDOW * RATE);
      windows.push({ phrase, start: from, end: to, probabilities: await score(model, waveform.slice(from, to)) });
    }
  }
  return { windows, segments: buildSegments(windows, model.settings) };
}

// ------------------------------------------------------------------------------------------------- speech

/** Levels in dBFS of the 128 ms around each multiple of 8 ms. */
function measureLevels(waveform) {
  const steps = Math.ceil(waveform.length / HOP);
  const sums = new Float64Array(steps + 1), squares = new Float64Array(steps + 1);
  for (let step = 0; step < steps; step++) {
    sums[step + 1] = sums[step];
    squares[step + 1] = squares[step];
    for (const sample of waveform.subarray(step * HOP, (step + 1) * HOP)) {
      sums[step + 1] += sample;
      squares[step + 1] += sample * sample;
    }
  }
  return Float64Array.from({ length: Math.floor(waveform.length / HOP) + 1 }, (_, index) => {
    const start = Math.max(0, index * HOP - FRAME / 2), end = Math.min(index * HOP + FRAME / 2, waveform.length);
    const count = Math.max(1, end - start), first = start / HOP, last = Math.ceil(end / HOP);
    const mean = (sums[last] - sums[first]) / count;
    return 10 * Math.log10(Math.max((squares[last] - squares[first]) / count - mean * mean, 1e-10));
  });
}

/** The highest level that lasts longer than a click. */
function findLoudest(levels) {
  const length = Math.min(CLICK / HOP, levels.length);
  let loudest = -Infinity;
  for (let start = 0; start + length <= levels.length; start++) {
    loudest = Math.max(loudest, Math.min(...levels.subarray(start, start + length)));
  }
  return loudest;
}

/** The level below which a frame is noise: noise is steady, and speech is not. */
function findNoiseThreshold(levels) {
  const ordered = levels.filter((level) => level > SILENCE_DB).sort();
  const count = Math.floor(NOISE_SHARE * levels.length), highest = findLoudest(levels) - LEAST_RANGE_DB;
  let steadiest = -1, narrowest = Infinity;
  for (let low = 0; count > 0 && low + count < ordered.length; low++) {
    const width = ordered[low + count] - ordered[low];
    if (ordered[low + count] <= highest && width < narrowest) [steadiest, narrowest] = [low, width];
  }
  if (narrowest > STEADY_DB) return SILENCE_DB;
  return Math.min(ordered[steadiest + Math.floor(count / 2)] + ABOVE_NOISE_DB, highest);
}

/** [start, end] in samples of the loud stretches; shorter gaps than a pause are bridged. */
function findSpans(levels, threshold, length) {
  const spans = [];
  for (let index = 0; index < levels.length; index++) {
    if (levels[index] <= threshold) continue;
    const start = Math.min(index * HOP, length), end = Math.min((index + 1) * HOP, length);
    if (spans.length && start - spans.at(-1)[1] < PAUSE * RATE) spans.at(-1)[1] = end;
    else spans.push([start, end]);
  }
  return spans.filter(([start, end]) => start < end);
}

/** Whether a loud stretch is more than a click. */
function isSound([start, end], length) {
  return start === 0 || end === length ? end - start >= SHORTEST_PHRASE * RATE : end - start > CLICK;
}

/** [start, end] in samples of each phrase, the speech between two pauses, trimmed to its own loudest moment. */
export function findPhrases(waveform, trimDb) {
  const levels = measureLevels(waveform), { length } = waveform;
  const noise = findNoiseThreshold(levels), loudest = findLoudest(levels);
  return findSpans(levels, Math.max(noise, loudest - PHRASE_RANGE_DB), length)
    .filter((span) => isSound(span, length))
    .filter(([start, end]) => levels.subarray(start / HOP, Math.floor(end / HOP) + 1).some((level) => level >= loudest - SPEECH_RANGE_DB))
    .map(([start, end]) => {
      const margin = Math.floor((MARGIN * RATE) / HOP);
      const first = Math.max(0, start / HOP - margin), last = Math.min(levels.length - 1, Math.ceil(end / HOP) + margin);
      const size = (last < levels.length - 1 ? last * HOP : length) - first * HOP;
      const own = levels.subarray(first, last + 1);
      const sounds = findSpans(own, Math.max(noise, findLoudest(own) - trimDb), size).filter((span) => isSound(span, size));
      const [from, to] = sounds.length ? [sounds[0][0], sounds.at(-1)[1]] : [0, size];
      return [first * HOP + from, first * HOP + to];
    });
}

/** Where the windows of a phrase start: equal ones that overlap by at least half. */
function findWindows(start, end) {
  const size = WINDOW * RATE, length = end - start;
  if (length <= size) return [start];
  const count = Math.ceil((2 * length) / size) - 1;
  return Array.from({ length: count }, (_, index) => start + Math.floor((index * (length - size)) / (count - 1)));
}

/** Cross-fade the windows of each phrase, and join equal labels. */
function buildSegments(windows, { labels, unsure_below: unsureBelow = 0 }) {
  const segments = [];
  for (const phrase of new Set(windows.map((window) => window.phrase))) {
    const own = windows.filter((window) => window.phrase === phrase);
    const start = own[0].start / RATE, end = own.at(-1).end / RATE;
    const steps = Math.max(1, Math.round((end - start) / STEP)), width = (end - start) / steps;
    let current = null;
    for (let step = 0; step < steps; step++) {
      const centre = start + (step + 0.5) * width;
      const weights = own.map((window) => Math.max(0, Math.min(centre - window.start / RATE, window.end / RATE - centre)));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const scores = labels.map((_, label) =>
        own.reduce((sum, window, index) => sum + weights[index] * window.probabilities[label], 0) / total);
      const best = scores.indexOf(Math.max(...scores));
      if (current?.label !== labels[best]) {
        current = { label: labels[best], start: start + step * width, scores: [] };
        segments.push(current);
      }
      current.scores.push(scores[best]);
      current.end = start + (step + 1) * width;
    }
  }
  return segments.map(({ scores, ...segment }) => {
    const mean = scores.reduce((sum, each) => sum + each, 0) / scores.length;
    return { ...segment, score: mean, unsure: mean < unsureBelow };
  });
}

// ------------------------------------------------------------------------------------------------- bandwidth

/** Why scores of a recording at 16 kHz may be unreliable; empty if nothing is known against them. */
export function findProblem(waveform, { bandwidth }) {
  const heard = bandwidth ?? RATE / 2, found = measureBandwidth(waveform);
  if (found === null || found >= CLEARLY_BELOW * heard) return "";
  const [has, trained] = [found, heard].map((hertz) => Number((hertz / 1000).toPrecision(2)));
  return `The recording contains no speech above ${has} kHz, but the model was trained on speech up to ${trained} kHz, so its scores are unreliable.`;
}

/** The highest frequency of the speech in Hz; null if there is too little speech. */
export function measureBandwidth(waveform) {
  const frames = measureBands(waveform);
  const peaks = frames.map((bands) => Math.max(...bands)), loudest = peaks.reduce((most, each) => Math.max(most, each), -140);
  const speech = frames.filter((_, index) => peaks[index] > loudest - SPEECH_RANGE_DB);
  if (speech.length < FEWEST_FRAMES) return null;
  const bands = Array.from({ length: BANDS }, (_, band) => {
    const levels = Float64Array.from(speech, (frame) => frame[band]).sort();
    return [0.5, 0.95, 0.98].map((share) => levels[Math.ceil(share * levels.length) - 1]);
  });
  const highest = Math.max(...bands.map(([, loud]) => loud));
  const hasSpeech = ([typical, loud, most]) =>
    loud >= highest - BAND_RANGE_DB && !(most - typical < NOISE_SPREAD_DB && loud < highest - NOISE_RANGE_DB);
  return (bands.findLastIndex(hasSpeech) + 1) * BAND_WIDTH;
}

/** Levels in dB of the bands of each frame. */
function measureBands(waveform) {
  const taper = Float64Array.from({ length: SPECTRUM }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / (SPECTRUM - 1)));
  const scale = taper.reduce((sum, each) => sum + each * each, 0) * SPECTRUM;
  const frames = [];
  for (let start = 0; start + SPECTRUM <= waveform.length; start += SPECTRUM / 2) {
    const power = measurePower(taper.map((each, index) => each * waveform[start + index]));
    power[0] = power[1] = 0; // a constant offset is not speech
    const width = power.length / BANDS;
    frames.push(Array.from({ length: BANDS }, (_, band) => {
      const sum = power.subarray(band * width, (band + 1) * width).reduce((total, each) => total + each, 0);
      return 10 * Math.log10(sum / scale + 1e-14);
    }));
  }
  return frames;
}

/** Power of the lower half of the frequencies, by the fast Fourier transform of radix 2, in place. */
function measurePower(real) {
  const size = real.length, imaginary = new Float64Array(size);
  for (let index = 0, mirrored = 0; index < size; index++) {
    if (index < mirrored) [real[index], real[mirrored]] = [real[mirrored], real[index]];
    let bit = size / 2;
    for (; mirrored & bit; bit /= 2) mirrored -= bit;
    mirrored += bit;
  }
  for (let half = 1; half < size; half *= 2) {
    for (let turn = 0; turn < half; turn++) {
      const cosine = Math.cos((Math.PI * turn) / half), sine = -Math.sin((Math.PI * turn) / half);
      for (let even = turn, odd = turn + half; odd < size; even += 2 * half, odd += 2 * half) {
        const turnedReal = real[odd] * cosine - imaginary[odd] * sine;
        const turnedImaginary = real[odd] * sine + imaginary[odd] * cosine;
        real[odd] = real[even] - turnedReal;
        imaginary[odd] = imaginary[even] - turnedImaginary;
        real[even] += turnedReal;
        imaginary[even] += turnedImaginary;
      }
    }
  }
  return real.subarray(0, size / 2).map((each, index) => each * each + imaginary[index] * imaginary[index]);
}

// ------------------------------------------------------------------------------------------------- audio

/** A file as 16 kHz mono. */
export async function readFile(file) {
  const decoder = new OfflineAudioContext(1, 1, RATE);
  const decoded = await decoder.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name} cannot be read as audio; choose a WAV, FLAC, OGG or MP3 file.`);
  });
  if (decoded.duration > 60 * LONGEST_MINUTES) {
    throw new Error(`${file.name} lasts ${(decoded.duration / 60).toFixed(1)} minutes; choose one of up to ${LONGEST_MINUTES}.`);
  }
  const mixed = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((sample, index) => (mixed[index] += sample / decoded.numberOfChannels));
  }
  return mixed;
}

/** Resample mono to 16 kHz. */
async function resample(waveform, rate) {
  if (rate === RATE || waveform.length === 0) return waveform;
  const context = new OfflineAudioContext(1, Math.ceil((waveform.length * RATE) / rate), RATE);
  const buffer = context.createBuffer(1, waveform.length, rate);
  buffer.copyToChannel(waveform, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

const COLLECTOR = `registerProcessor("collector", class extends AudioWorkletProcessor {
  process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
})`;

/** Open the microphone: `read(seconds)` gives the last seconds, or all, at 16 kHz; `stop()` closes it. */
export async function openMicrophone() {
  const clean = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // they change the voice
  const asked = navigator.mediaDevices?.getUserMedia({ audio: { channelCount: 1, ...clean } });
  const stream = await (asked ?? Promise.reject(new Error("the page needs https or localhost"))).catch((error) => {
    throw new Error(`The microphone is not available (${error.message}): allow it in the browser, or choose a recording.`);
  });
  const context = new AudioContext();
  const blob = URL.createObjectURL(new Blob([COLLECTOR], { type: "text/javascript" }));
  await context.audioWorklet.addModule(blob);
  URL.revokeObjectURL(blob);
  const collector = new AudioWorkletNode(context, "collector", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const blocks = [];
  collector.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(collector);
  return {
    read(seconds = Infinity) {
      const count = Math.min(blocks.length, Math.ceil((seconds * context.sampleRate) / 128));
      const chosen = blocks.slice(blocks.length - count);
      const whole = new Float32Array(chosen.reduce((sum, block) => sum + block.length, 0));
      chosen.reduce((place, block) => (whole.set(block, place), place + block.length), 0);
      return resample(whole, context.sampleRate);
    },
    stop() {
      stream.getTracks().forEach((track) => track.stop());
      return context.close();
    },
  };
}
