"""How an unchanged file gets into the store; a module of its own because the command line names the modes at once."""

#: "auto" clones where the file system can, else hard-links files of this user, else copies.
LINK_MODES = ("auto", "reflink", "hard", "copy")
