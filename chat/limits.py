"""Limits of the chat and its API: for a message, a request, a file, a visitor."""

# The chat and the API refuse a longer message. A longer cell of a file is cut.
MAX_MESSAGE_CHARACTERS = 100_000

# Texts in one request to the API.
MAX_REQUEST_TEXTS = 256
# A file of 10 MB may be uploaded (.chainlit/config.toml); the rest is room for the form around it.
MAX_REQUEST_BYTES = 11 * 2**20

# A file that is dropped into the chat.
MAX_FILE_ROWS = 10_000
MAX_FILE_COLUMNS = 100
# An .xlsx is a zip archive: a small one can unpack to gigabytes.
MAX_UNPACKED_BYTES = 50 * 2**20

# Unanswered messages of one visit. A person types no faster; a script that does must not crowd out other visitors.
MAX_PENDING_MESSAGES = 8
# Answers of a visit that can still be marked as wrong.
MAX_REMEMBERED_ANSWERS = 200
