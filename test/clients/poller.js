// Follows the changes of alerts: node poller.js HOST PORT DATABASE FILE
//
// Appends the seq of each change to FILE, a line each, and goes on behind the
// last whole line of it, whatever cut it off: the connection, or a kill of this
// process. LISTEN is a hint to poll at once; without one it polls anyway. Ends
// when FILE.stop is there and everything up to the number in it is seen.
'use strict';
const fs = require('fs');
const { Client } = require('pg');
const [host, port, database, file] = process.argv.slice(2);

function last() {
	const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
	const whole = text.slice(0, text.lastIndexOf('\n') + 1);
	if (whole.length < text.length) fs.truncateSync(file, Buffer.byteLength(whole));
	const lines = whole.trim().split('\n');
	return lines[0] === '' ? '0' : lines[lines.length - 1];
}

async function follow() {
	const client = new Client({ host, port: Number(port), database, user: 'postgres', application_name: 'poller_js' });
	let wake = () => {};
	let broken = null;
	client.on('notification', () => { fs.appendFileSync(`${file}.hints`, 'hint\n'); wake(); });
	client.on('error', (error) => { broken = error; wake(); });
	await client.connect();
	try {
		await client.query('LISTEN cs_alert');
		let after = last();
		while (!broken) {
			const { rows } = await client.query('SELECT seq FROM cs.alert_changes($1, 50)', [after]);
			if (rows.length > 0) {
				fs.appendFileSync(file, rows.map((row) => `${row.seq}\n`).join(''));
				after = rows[rows.length - 1].seq;
				continue;
			}
			if (fs.existsSync(`${file}.stop`) && BigInt(after) >= BigInt(fs.readFileSync(`${file}.stop`, 'utf8').trim())) return true;
			await new Promise((resolve) => {
				const timer = setTimeout(resolve, 100);
				wake = () => { clearTimeout(timer); resolve(); };
			});
		}
		throw broken;
	} finally {
		client.end().catch(() => {});
	}
}

(async () => {
	for (;;) {
		try {
			if (await follow()) process.exit(0);
		} catch (error) {
			fs.appendFileSync(`${file}.cuts`, `${error.message}\n`);
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
	}
})();
