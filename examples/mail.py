"""A welcome mail for each new user. Kill it anywhere (kill -9) and start it again: nobody is left out, at most one has it twice.

    python examples/mail.py
"""

import smtplib

import offline
import resumable


@resumable.loop(name="welcome mail")
def send_welcome_emails(users, mailer):
    for user in users:
        text = f"Subject: Welcome!\n\nHello {user['name']}, it is good to have you."
        mailer.sendmail("us@example.org", user["email"], text)


if __name__ == "__main__":
    with offline.service("mail") as (host, port), smtplib.SMTP(host, port) as mailer:
        send_welcome_emails(offline.people(100), mailer)
