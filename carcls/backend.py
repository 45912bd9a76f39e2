"""Imports Keras and its backend without what they say of their own build.

Whatever is imported after this module finds Keras loaded: `from carcls.backend import keras`.

TensorFlow writes a dozen lines about itself to standard error while it is imported, from code that
no setting reaches. They are held back, and shown if the import fails.

Meanwhile nothing looks for garbage, and what was imported is not looked through afterwards either:
a million objects, none of which ever becomes garbage. It takes a quarter of the import, and a fifth
of what comes after it in a short run.
"""

import gc
import os
import sys
import tempfile


def _import_quietly() -> None:
    was_enabled = gc.isenabled()
    gc.disable()
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import keras

            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices()  # says more on the first look at the devices
        except Exception:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            gc.freeze()
            if was_enabled:
                gc.enable()


_import_quietly()

import keras  # noqa: E402, F401  for those who import it from here
