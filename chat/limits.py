"""How much the chat and its API take: of a message, a request, a file, a visitor."""

# A message, in the chat and through the API; a cell of a file is cut there.
MAX_MESSAGE_CHARACTERS = 100_000

# A request to the API.
MAX_REQUEST_TEXTS = 256
# Uploads may have 10 MB (.chainlit/config.toml), with some room for what surrounds them.
MAX_REQUEST_BYTES = 11 * 2**20

# A file that is dropped into the chat.
MAX_FILE_ROWS = 10_000
MAX_FILE_COLUMNS = 100
# An .xlsx is a zip archive: a small one can unpack to gigabytes.
MAX_UNPACKED_BYTES = 50 * 2**20

# Messages of one visit that wait. A person does not type faster; a script that does shall not crowd out the others.
MAX_PENDING_MESSAGES = 8
# Answers of a visit that can still be marked as wrong.
MAX_REMEMBERED_ANSWERS = 200
