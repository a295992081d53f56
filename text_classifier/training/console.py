"""Show a training run on the console: one progress bar, and one short line for each evaluation."""

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer


class ConsoleCallback(ProgressCallback):
    """One bar with the loss and the validation accuracy; transformers' own writes whole dictionaries and more bars."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.current_step = 0
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps, desc="Training", unit=" steps", dynamic_ncols=True, disable=args.disable_tqdm
            )

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        # The training bar stays the only one while there is one.
        if self.training_bar is None and state.is_world_process_zero:
            if self.prediction_bar is None:
                options = {"desc": "Evaluating", "unit": " batches", "leave": False, "disable": args.disable_tqdm}
                self.prediction_bar = tqdm(total=len(eval_dataloader), dynamic_ncols=True, **options)
            self.prediction_bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None:
            return
        if "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        # Pretraining has no accuracy, and writes lines of its own with samples.
        if "eval_accuracy" in logs:
            self.training_bar.write(
                f"Step {state.global_step:,} of {state.max_steps:,}: validation loss {logs['eval_loss']:.3f}, "
                f"accuracy {100 * logs['eval_accuracy']:.1f} %"
            )


def use_console(trainer: Trainer) -> None:
    """Let `ConsoleCallback` report in place of transformers' callbacks for consoles; in a notebook, its table stays."""
    replaced = [trainer.pop_callback(usual) for usual in (ProgressCallback, PrinterCallback)]
    if any(replaced):
        trainer.add_callback(ConsoleCallback())
