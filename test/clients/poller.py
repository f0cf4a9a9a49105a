# Follows the changes of alerts: python3 poller.py HOST PORT DATABASE FILE
#
# As poller.js: appends the seq of each change to FILE and goes on behind its
# last whole line, whatever cut it off. LISTEN is a hint to poll at once.
import os
import sys
import time

import psycopg

host, port, database, file = sys.argv[1:5]


def last():
    if not os.path.exists(file):
        return 0
    with open(file, "rb+") as f:
        data = f.read()
        whole = data[: data.rfind(b"\n") + 1]
        f.truncate(len(whole))
    lines = whole.split()
    return int(lines[-1]) if lines else 0


def append(name, text):
    with open(name, "a") as f:
        f.write(text)


def follow():
    with psycopg.connect(host=host, port=port, dbname=database, user="postgres", autocommit=True,
                         application_name="poller_py") as connection:
        connection.execute("LISTEN cs_alert")
        connection.add_notify_handler(lambda notify: append(file + ".hints", "hint\n"))
        after = last()
        while True:
            rows = connection.execute("SELECT seq FROM cs.alert_changes(%s, 50)", (after,)).fetchall()
            if rows:
                append(file, "".join("%d\n" % row[0] for row in rows))
                after = rows[-1][0]
                continue
            if os.path.exists(file + ".stop") and after >= int(open(file + ".stop").read()):
                return
            time.sleep(0.1)


while True:
    try:
        follow()
        break
    except psycopg.Error as error:
        append(file + ".cuts", str(error).splitlines()[0] + "\n")
        time.sleep(0.05)
